"""Checking that diffusers applies an edit's LoRA as the edit."""

from importlib.util import find_spec
from pathlib import Path

from engine.editing.delta import read_delta
from engine.editing.lora import PEFT_FILE
from engine.editing.lora_check import CheckedMatrix, check_lora
from engine.files import is_file
from engine.model.opening import check_model, open_with_pipeline
from jobs.editing.whole import read_edit
from jobs.runs.progress import Note
from schemas.errors import ConceptError


def check_edit(folder: Path, *, lora: Path | None, note: Note) -> list[CheckedMatrix]:
    """Return each matrix of an edit, with its state after diffusers has loaded the LoRA.

    `lora` None: the file of the edit's folder. ConceptError: peft is not installed, there is no
    such file, or diffusers cannot load it.
    """
    if find_spec("peft") is None:
        raise ConceptError("diffusers loads a LoRA with peft: install it, pip install 'dqf[lora]'")
    manifest = read_edit(folder)
    file = folder / PEFT_FILE if lora is None else lora
    if not is_file(file):
        why = f"; its LoRA is {manifest.lora}" if lora is None else ""
        raise ConceptError(f"{file} is not a file{why}")
    check_model(manifest.model)
    note(f"opening {manifest.model}")
    model, pipeline = open_with_pipeline(manifest.model)
    return check_lora(model, pipeline, file, read_delta(folder, model))
