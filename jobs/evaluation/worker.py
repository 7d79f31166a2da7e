"""The worker of an evaluation: it draws and scores the pairs of a unit."""

# pyright: reportUnknownMemberType=false
# torch leaves parts of some methods without types.

import io
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch
from PIL import Image

from engine.editing.delta import read_delta
from engine.editing.delta_file import delta_hash
from engine.evaluation.neighbors import Neighborhood
from engine.evaluation.pairs import Pair, Side, draw_pairs
from engine.model.calibration import BatchRows
from engine.model.device import is_cpu
from engine.model.hub import source_folder
from engine.model.model import Diffusion
from engine.model.opening import open_model
from engine.model.sampling import pixels_of
from engine.model.scorer import open_scorer
from engine.model.vocabulary import read_phrasebook
from jobs.editing.grid import CELL
from jobs.pool.worker import Worker
from jobs.runs.evaluation_run import EvaluationRun, open_evaluation
from jobs.runs.run import IdentifiedUnit, Row
from schemas.errors import ConceptError
from schemas.evaluation import EvaluationPrompt, EvaluationUnit, Group, ImageRow


class EvaluationWorker(Worker[EvaluationUnit]):
    """A worker that draws with the unedited and the edited model of an evaluation."""

    def __init__(self, location: str, *, edits: Mapping[str, str], threads: int) -> None:
        """Open the scorer, the model and the deltas in the folders `edits`, by name.

        ModelUnavailable, ConceptError: one of them cannot be opened, or the delta is another
        edit's.
        """
        run = open_evaluation(location)
        super().__init__(run, PairTracer(run, edits))


def one_thread_on_a_cpu() -> None:
    """Limit a process without a GPU to one thread.

    The last bits of an image depend on the number of threads, which differs between machines.
    """
    if is_cpu():
        torch.set_num_threads(1)


def read_planned_delta(edit: Path, model: Diffusion, *, planned: str) -> Mapping[str, torch.Tensor]:
    """Return an edit's weights; ConceptError if its delta does not have the hash `planned`."""
    if delta_hash(edit) != planned:
        raise ConceptError(f"the delta in {edit} is not the one that is evaluated")
    return read_delta(edit, model)


class PairTracer:
    """Draws and scores units on this process's device."""

    def __init__(self, run: EvaluationRun, edits: Mapping[str, str]) -> None:
        one_thread_on_a_cpu()
        self._plan = run.plan
        self._scorer = open_scorer(self._plan.scorer)
        self._model = open_model(self._plan.model, dtype=self._plan.numerics.dtype)
        self._edits = {
            name: read_planned_delta(Path(folder), self._model, planned=self._plan.edits[name])
            for name, folder in edits.items()
        }
        self._near = Neighborhood(self._model, read_phrasebook(source_folder(self._plan.model)))
        self._rows = BatchRows(self._plan.rows, least=1)

    def score_rows(self, row: IdentifiedUnit[EvaluationUnit]) -> list[Row]:
        """Return a unit's rows, one per edit and prompt."""
        near = self._nearness(row.unit)
        return [
            asdict(_image_row(row, prompt, pair, edit=edit, near=near))
            for edit, pairs in self._pairs(row.unit).items()
            for prompt, pair in zip(row.unit.subject.prompts, pairs, strict=True)
        ]

    def _nearness(self, unit: EvaluationUnit) -> tuple[str, float] | None:
        """Return the nearest concept of a kept name, and their similarity."""
        subject = unit.subject
        if subject.kind is None or subject.prompts[0].group is not Group.KEPT:
            return None
        concepts = self._plan.concepts.get(subject.kind, ())
        return self._near.nearest(subject.name, concepts, kind=subject.kind)

    def _pairs(self, unit: EvaluationUnit) -> dict[str, list[Pair]]:
        return self._rows.fit(
            lambda rows: draw_pairs(
                self._model,
                self._scorer,
                self._edits,
                unit.subject.prompts,
                seed=unit.seed,
                names=self._plan.names,
                numerics=self._plan.numerics,
                rows=rows,
            )
        )


def _image_row(
    row: IdentifiedUnit[EvaluationUnit],
    prompt: EvaluationPrompt,
    pair: Pair,
    *,
    edit: str,
    near: tuple[str, float] | None,
) -> ImageRow:
    unit, before, after = row.unit, pair.before, pair.after
    keeps_embedding = prompt.group is Group.GENERAL
    is_shown = unit.is_shown and prompt.shown
    return ImageRow(
        unit_id=row.unit_id,
        edit=edit,
        subject=unit.subject.name,
        subject_kind=unit.subject.kind,
        replacement=unit.subject.replacement,
        nearest_concept=near[0] if near else None,
        nearness=near[1] if near else None,
        group=prompt.group.value,
        prompt=prompt.text,
        kind=prompt.kind,
        name=prompt.name,
        seed=unit.seed,
        chosen_before=before.chosen,
        chosen_after=after.chosen,
        clip_before=before.clip,
        clip_after=after.clip,
        similarity=pair.similarity,
        embedding_before=_embedding(before) if keeps_embedding else None,
        embedding_after=_embedding(after) if keeps_embedding else None,
        image_before=png(before.image_CHW) if is_shown else None,
        image_after=png(after.image_CHW) if is_shown else None,
    )


def _embedding(side: Side) -> list[float]:
    return cast("list[float]", side.embedding_D.float().tolist())


def png(image_CHW: torch.Tensor) -> bytes:
    """Return an image in [0, 1] as PNG, scaled down to its size in the picture."""
    image = Image.fromarray(pixels_of(image_CHW))
    image.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()
