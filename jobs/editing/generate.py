"""Drawing prompts with a model, or with and without an edit from the same latents.

Shapes: R images (prompts x seeds, the seeds of a prompt together), C H W an image.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from engine.editing.delta import read_delta, replaced, weights_of
from engine.files import check_writable, is_folder, prepare_output, whole_file
from engine.model.defaults import default_sampling
from engine.model.guidance import check_guidance
from engine.model.model import Diffusion
from engine.model.opening import check_model, count_steps, open_model, open_skeleton
from engine.model.sampling import generate, pixels_of
from engine.model.tokens import count_tokens
from jobs.editing.grid import draw_grid
from jobs.editing.whole import read_edit
from jobs.runs.progress import Note
from schemas.errors import ConceptError, PlanError
from schemas.manifest import EditManifest
from schemas.numerics import Numerics
from schemas.printable import shown

DEFAULT_MODEL = "emoji-sd"
BATCH = 8
"""Images between two lines of progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """The prompts to draw, and the settings."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    model: str | None = None
    """None: the edit's model, or emoji-sd."""
    edit: Path | None = None
    """An edit's folder."""
    steps: int | None = None
    guidance: float | None = None
    """None: the model's own."""
    scheduler: str | None = None
    """A name; the model's own by default."""


def draw_images(drawing: Drawing, *, out: Path, note: Note) -> list[Path]:
    """Write a PNG for each prompt and seed, of the edited model if there is an edit.

    Returns their paths: `out` for a single one, else `out` with the prompt's number and the seed.
    PlanError, ConceptError, ModelUnavailable: nothing is written.
    """
    _check_out(out)
    numbered = [(n, seed) for n in range(1, len(drawing.prompts) + 1) for seed in drawing.seeds]
    names = [out.with_name(f"{out.stem}-{n}-seed{seed}.png") for n, seed in numbered]
    paths = [out] if len(names) == 1 else names
    for path in paths:
        check_writable(path, error=PlanError)
    model, weights = _opened(drawing, note)
    with replaced(model, weights):
        pixels = _draw(model, drawing, note)
    images = pixels.reshape(-1, *pixels.shape[2:])
    for path, image in zip(paths, images, strict=True):
        with whole_file(path, error=PlanError) as file:
            Image.fromarray(image).save(file, format="PNG")
    return paths


def draw_before_and_after(drawing: Drawing, *, out: Path, note: Note) -> Path:
    """Write one PNG: a row per prompt, each seed's image without and with the edit side by side.

    PlanError, ConceptError, ModelUnavailable: nothing is written.
    """
    _check_out(out)
    model, weights = _opened(drawing, note)
    before = _draw(model, drawing, note, doing="before: ")
    with replaced(model, weights):
        after = _draw(model, drawing, note, doing="after: ")
    with whole_file(out, error=PlanError) as file:
        draw_grid(drawing.prompts, before=before, after=after, file=file)
    return out


def _opened(drawing: Drawing, note: Note) -> tuple[Diffusion, Mapping[str, torch.Tensor]]:
    """Return the model and the edit's weights, after all checks that need no model."""
    for place, seed in enumerate(drawing.seeds):
        if seed in drawing.seeds[:place]:
            raise PlanError(f"--seed {seed} is given twice: its images would be the same")
    manifest = None if drawing.edit is None else read_edit(drawing.edit)
    name = drawing.model or (DEFAULT_MODEL if manifest is None else manifest.model)
    if manifest is not None:
        _check_fits(name, manifest, drawing.edit)
    numerics = _numerics(drawing, name)
    check_model(name)
    count_steps(name, scheduler=numerics.scheduler, steps=numerics.steps)
    check_guidance(open_skeleton(name), numerics)
    note(f"opening {name}")
    model = open_model(name)
    weights = {} if drawing.edit is None else read_delta(drawing.edit, model)
    for encoder in model.encoders:
        limit = encoder.tokenizer.model_max_length
        counts = count_tokens(encoder.tokenizer, drawing.prompts)
        for prompt, count in zip(drawing.prompts, counts, strict=True):
            if count > limit:
                note(f"warning: {encoder.name} reads the first {limit} tokens of {shown(prompt)}")
    return model, weights


def _check_fits(model: str, manifest: EditManifest, edit: Path | None) -> None:
    """Refuse a model without the edit's matrices; their values are compared later."""
    shapes = {name: tuple(w.shape) for name, w in weights_of(open_skeleton(model)).items()}
    for matrix in manifest.matrices:
        if shapes.get(matrix.name) != matrix.shape:
            raise ConceptError(
                f"edit {edit} was made for another model: {model} has no {matrix.name} of "
                f"{' x '.join(map(str, matrix.shape))}; open the model {manifest.model}"
            )


def _numerics(drawing: Drawing, model: str) -> Numerics:
    own = default_sampling(model)
    return Numerics(
        scheduler=drawing.scheduler,
        steps=drawing.steps or own.steps,
        guidance=drawing.guidance or own.guidance,
    )


def _draw(model: Diffusion, drawing: Drawing, note: Note, *, doing: str = "") -> NDArray[np.uint8]:
    """Return `(prompt, seed, height, width, 3)`; an image's latent depends on its seed alone."""
    numerics = _numerics(drawing, model.name)
    asked = [(prompt, seed) for prompt in drawing.prompts for seed in drawing.seeds]
    parts: list[torch.Tensor] = []
    for start in range(0, len(asked), BATCH):
        captions, seeds = zip(*asked[start : start + BATCH], strict=True)
        parts.append(generate(model, captions, seeds=seeds, numerics=numerics))
        note(f"{doing}{min(start + BATCH, len(asked))} of {len(asked)} images drawn")
    bytes_RHWC = pixels_of(torch.cat(parts))
    return bytes_RHWC.reshape(len(drawing.prompts), len(drawing.seeds), *bytes_RHWC.shape[1:])


def _check_out(out: Path) -> None:
    if out.suffix.lower() != ".png":
        raise PlanError(f"--out {out} is not a .png file")
    if is_folder(out):
        raise PlanError(f"--out {out} is a folder: name a file in it")
    prepare_output(out, error=PlanError)
