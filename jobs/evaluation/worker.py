"""The worker of an evaluation: it draws and scores the pairs of a unit."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from engine.editing.delta import read_delta
from engine.evaluation.neighbors import Neighborhood
from engine.evaluation.pairs import Pair, Side, draw_pairs
from engine.model.calibration import BatchRows
from engine.model.hub import source_folder
from engine.model.model import Diffusion
from engine.model.opening import open_model
from engine.model.sampling import pixels_of
from engine.model.scorer import open_scorer
from engine.model.vocabulary import read_phrasebook
from jobs.editing.grid import CELL
from jobs.pool.worker import Worker
from jobs.runs.evaluation_run import EvaluationRun, delta_hash, open_evaluation
from jobs.runs.run import IdentifiedUnit, Row
from schemas.errors import ConceptError
from schemas.evaluation import EvaluationPrompt, EvaluationUnit, Group


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
    if not torch.cuda.is_available():
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
        unit = row.unit
        shared = {
            "unit_id": row.unit_id,
            "subject": unit.subject.name,
            "subject_kind": unit.subject.kind,
            "replacement": unit.subject.replacement,
            "seed": unit.seed,
        }
        near = self._nearness(unit)
        return [
            {
                **shared,
                **near,
                "edit": edit,
                **_pair_row(prompt, pair, is_shown=unit.is_shown and prompt.shown),
            }
            for edit, pairs in self._pairs(unit).items()
            for prompt, pair in zip(unit.subject.prompts, pairs, strict=True)
        ]

    def _nearness(self, unit: EvaluationUnit) -> Mapping[str, Any]:
        """Return the nearest concept of a kept name, and their similarity."""
        subject = unit.subject
        if subject.kind is None or subject.prompts[0].group is not Group.KEPT:
            return {}
        concepts = self._plan.concepts.get(subject.kind, ())
        nearest = self._near.nearest(subject.name, concepts, kind=subject.kind)
        return {} if nearest is None else {"nearest_concept": nearest[0], "nearness": nearest[1]}

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


def _pair_row(prompt: EvaluationPrompt, pair: Pair, *, is_shown: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "group": prompt.group.value,
        "prompt": prompt.text,
        "kind": prompt.kind,
        "name": prompt.name,
        "similarity": pair.similarity,
    }
    for name, side in (("before", pair.before), ("after", pair.after)):
        row |= _side(name, side, keeps_embedding=prompt.group is Group.GENERAL, is_shown=is_shown)
    return row


def _side(name: str, side: Side, *, keeps_embedding: bool, is_shown: bool) -> dict[str, Any]:
    row: dict[str, Any] = {f"chosen_{name}": side.chosen, f"clip_{name}": side.clip}
    if keeps_embedding:
        row[f"embedding_{name}"] = side.embedding_D.float().tolist()
    if is_shown:
        row[f"image_{name}"] = png(side.image_CHW)
    return row


def png(image_CHW: torch.Tensor) -> bytes:
    """Return an image in [0, 1] as PNG, scaled down to its size in the picture."""
    image = Image.fromarray(pixels_of(image_CHW))
    image.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()
