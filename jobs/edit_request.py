"""From what the user asks for to an `EditJob`: concepts, component, model, settings."""

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from engine.edit import EditSettings
from engine.folder import refuse_occupied
from engine.models import open_skeleton
from engine.registry import default_guidance, default_scorer, default_steps, unpinned
from engine.scoring import check_scorer
from jobs.concepts import read_concepts
from jobs.edit import EditJob, Note, edit_batch, projection_of
from jobs.edit_report import EditReport, Located
from jobs.locate import locate
from jobs.store import open_run
from schemas.errors import ConceptError
from schemas.plan import Numerics

T = TypeVar("T")


def run_edit(
    concepts_path: Path,
    *,
    out: Path,
    run: str | None,
    layer: str | None,
    model: str | None,
    scorer: str | None,
    images: int,
    ridge: float | None,
    preserve: float | None,
    note: Note,
) -> EditReport:
    """Return the report of an edit; all that can be refused cheaply is refused first."""
    concepts = read_concepts(concepts_path)
    refuse_occupied(out)
    if run is None and (layer is None or model is None):
        raise ConceptError("name a run (--from-run), or both a model and a component (--layer)")
    plan = open_run(run).plan if run else None
    located = Located(component=layer) if layer else locate(_given(run), concepts)
    note(describe(located))
    if located.is_doubtful:
        note(
            "warning: the 95% interval of this effect reaches zero, the edit may erase nothing: "
            "trace more captions, or name a --layer"
        )
    name = model or _given(plan).model
    # A run's own numerics belong to its own model only.
    same = plan if plan and name in (plan.model, unpinned(plan.model)) else None
    projection_of(open_skeleton(name), located.component)
    scorer = scorer or (same.scorer if same else default_scorer(name))
    check_scorer(scorer)
    job = EditJob(
        concepts=concepts,
        model=name,
        located=located,
        out=out,
        settings=settings(ridge=ridge, preserve=preserve),
        numerics=same.numerics if same else default_numerics(name),
        scorer=scorer,
        images=images,
    )
    return edit_batch(job, note=note)


def default_numerics(model: str) -> Numerics:
    """Return the steps and guidance that a model's images are drawn with by default."""
    return Numerics(steps=default_steps(model), guidance=default_guidance(model))


def describe(located: Located) -> str:
    """Return one line that says which component is edited and why."""
    if located.mean_ie is None:
        return f"editing {located.component}, as asked"
    over = f"attribute {located.attribute}" if located.attribute else "all attributes"
    return (
        f"editing {located.component}: highest mean indirect effect on the target's score, "
        f"{located.mean_ie:+.4f} over {over} of {located.run}"
    )


def settings(*, ridge: float | None, preserve: float | None) -> EditSettings:
    """Return the default settings with those that are given in their place."""
    if ridge is not None and ridge <= 0:
        raise ConceptError("--ridge must be positive")
    given = {"ridge": ridge, "preserve": preserve}
    return replace(EditSettings(), **{k: v for k, v in given.items() if v is not None})


def _given(value: T | None) -> T:
    assert value is not None
    return value
