"""Runs, tracers and workers without a model, to measure everything else."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from jobs.pool.worker import Worker
from jobs.runs.provenance import Manifest
from jobs.runs.run import IdentifiedUnit, Task, TaskDone
from jobs.runs.trace_run import TraceRun, create_run, open_run
from schemas.caption import Caption
from schemas.component import Component, Kind, Part
from schemas.plan import TracePlan

MEASURES = ("caption", "target")
"""The measures of a made-up run: one score row for each of them, per unit and component."""
STEPS = 50
MANIFEST = Manifest(
    model_hash="m", scorer_hash="s", versions={}, code_hash="c", git_commit="", created=""
)


def make_plan(*, units: int, captions: int, chunk_units: int) -> TracePlan:
    """Return a plan of `captions` x as many seeds as make `units` units, rounded up."""
    captions = min(captions, units)
    return TracePlan(
        scorer="builtin:emoji-sd",
        captions=tuple(_caption(number) for number in range(captions)),
        parts=(Part.TEXT_ENCODER,),
        measures=MEASURES,
        seeds=tuple(range(-(-units // captions))),
        chunk_units=chunk_units,
    )


def cats(count: int, attributes: tuple[str, ...]) -> tuple[Caption, ...]:
    """Return `count` captions of each attribute, which differ in their numbers."""
    return tuple(
        Caption(caption=f"cat {n} {name}", subject="cat", attribute=name)
        for name in attributes
        for n in range(count)
    )


def _caption(number: int) -> Caption:
    style = f"artist {number % 97}"
    return Caption(
        caption=f"a photo of scene {number} in the style of {style}",
        subject=style,
        attribute=("style", "object", "color")[number % 3],
    )


def make_components(count: int) -> list[Component]:
    """Return `count` made-up components of a text encoder."""
    return [
        Component(
            name=f"text_encoder.layers.{order}.self_attn",
            part=Part.TEXT_ENCODER,
            kind=Kind.SELF_ATTENTION,
            order=order,
            layer=order,
            num_parameters=2_362_368,
        )
        for order in range(count)
    ]


def make_run(location: Path | str, plan: TracePlan, *, components: int) -> TraceRun:
    """Return a new run of a plan, written by the same code as users' runs."""
    return create_run(location, plan, MANIFEST, make_components(components), steps=STEPS)


def score_row(row: IdentifiedUnit, component: str, **columns: object) -> dict[str, Any]:
    """Return a made-up score row of a unit's component: the given `columns`, and otherwise a
    component restored at the last subject token, at every step."""
    unit = row.unit
    return {
        "unit_id": row.unit_id,
        "caption_id": unit.caption.id,
        "seed": unit.seed,
        "draw": unit.draw,
        "noise_sigmas": unit.noise_sigmas,
        "part": unit.part.value,
        "component": component,
        "intervention": "restore",
        "token": "last_subject",
        "position": 2,
        "token_text": "cat</w>",
        "path": "tokens",
        "patch_kind": "state",
        "estimate": "exact",
        "step_start": 0,
        "step_stop": STEPS,
    } | columns


def commit_all(run: TraceRun, rows_of: Callable[[IdentifiedUnit], Iterable[dict]]) -> None:
    """Commit the rows of every unit, which `rows_of` returns."""
    for chunk in range(run.num_chunks):
        commit_chunk(run, chunk, rows_of)


def commit_chunk(
    run: TraceRun, chunk: int, rows_of: Callable[[IdentifiedUnit], Iterable[dict]]
) -> bool:
    """Commit the rows of a chunk's units; return False if another writer had committed it."""
    units = run.unit_rows(Task(chunk=chunk))
    rows = [row for unit in units for row in rows_of(unit)]
    return run.commit(Task(chunk=chunk), rows, [], units=len(units))


def score_rows(row: IdentifiedUnit[Any]) -> list[dict[str, Any]]:
    """Return a unit's made-up scores: random floats, which compress as badly as real ones."""
    unit = row.unit
    clean, corrupted = _uniform(row.unit_id, 0), _uniform(row.unit_id, 1)
    return [
        score_row(
            row,
            component,
            measure=measure,
            clean=clean + 0.1 * column,
            corrupted=corrupted - 0.1 * column,
            patched=_uniform(row.unit_id, 2 + number % 4) + 0.01 * number + 0.001 * column,
        )
        for number, component in enumerate(unit.components)
        for column, measure in enumerate(MEASURES)
    ]


def _uniform(unit_id: str, place: int) -> float:
    return int(unit_id[5 * place : 5 * place + 5], 16) / 2**20


class NoModel:
    """A tracer that invents scores."""

    def score_rows(self, row: IdentifiedUnit[Any]) -> list[dict[str, Any]]:
        """Return the score rows of a unit."""
        return score_rows(row)


class WritingWorker(Worker):
    """A worker that does everything except run a model."""

    def __init__(self, location: str) -> None:
        """Open the run at `location`."""
        super().__init__(open_run(location), NoModel())


class IdleWorker(Worker):
    """A worker that answers but does nothing, to measure the driver."""

    def __init__(self, location: str, *, task_s: float) -> None:
        """Take `task_s` seconds for a task."""
        super().__init__(open_run(location), NoModel())
        self._task_s = task_s

    def run(self, task: Task) -> TaskDone:
        """Return at once, or after a pause."""
        if self._task_s:
            time.sleep(self._task_s)
        return TaskDone(units=1, seconds=self._task_s)

    def pack(self, group: int) -> None:
        """Return at once."""
