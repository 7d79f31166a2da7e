"""A run of three captions and three components, without any model."""

from pathlib import Path
from typing import Any

from jobs.runs.run import IdentifiedUnit, Task
from jobs.runs.trace_run import TraceRun, create_run
from schemas.caption import Caption
from schemas.component import Component, Kind, Part
from schemas.plan import TracePlan
from tests.made_up.runs import MANIFEST, commit_chunk, score_row

NAMES = ("text_encoder.layers.0.self_attn", "text_encoder.layers.0.mlp")
CAPTIONS = (
    Caption(caption="a cat", subject="cat", attribute="object"),
    Caption(caption="a dog", subject="dog", attribute="object"),
    Caption(caption="a dog in the style of noto", subject="noto", attribute="style"),
)


def make_run(
    path: Path | str, *, seeds: tuple[int, ...] = (0, 1), chunk_units: int = 2
) -> TraceRun:
    """Return a new run: one unit a caption and seed."""
    plan = TracePlan(
        scorer="builtin:emoji-sd",
        captions=CAPTIONS,
        parts=(Part.TEXT_ENCODER,),
        seeds=seeds,
        chunk_units=chunk_units,
    )
    components = [
        Component(
            name=name,
            part=Part.TEXT_ENCODER,
            kind=Kind.MLP,
            order=order,
            layer=0,
            num_parameters=1,
        )
        for order, name in enumerate(NAMES)
    ]
    return create_run(path, plan, MANIFEST, components, steps=50)


def all_units(run: TraceRun) -> list[IdentifiedUnit]:
    """Return the units of a run, in order."""
    return [row for chunk in range(run.num_chunks) for row in run.unit_rows(Task(chunk=chunk))]


def commit_scores(run: TraceRun, chunk: int) -> bool:
    """Commit the made-up scores of all units of a chunk."""
    return commit_chunk(run, chunk, score_rows)


def score_rows(row: IdentifiedUnit[Any]) -> list[dict[str, Any]]:
    """Return a unit's made-up scores, different for every caption, seed, component and text."""
    spread = int(row.unit_id[:6], 16) / 2**24
    unit = row.unit
    return [
        score_row(
            row,
            component,
            measure=measure,
            clean=0.30,
            corrupted=0.295 if unit.seed == 0 else 0.10,
            patched=0.1 + 0.1 * spread + 0.02 * n,
        )
        for n, component in enumerate(unit.components)
        for measure in ("caption", "target")
    ]
