"""From what the user asks for to an `EditJob`: concepts, component, model, settings."""

from dataclasses import replace
from pathlib import Path

from engine.edit import EditSettings
from engine.folder import refuse_occupied
from jobs.concepts import read_concepts
from jobs.edit import EditJob, Note, edit_batch
from jobs.edit_report import EditReport, Located
from jobs.locate import locate, model_of
from schemas.errors import ConceptError


def run_edit(
    concepts_path: Path,
    *,
    out: Path,
    run: Path | None,
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
    if layer is None and run is None:
        raise ConceptError("name a run (--from-run) or a component (--layer)")
    if model is None and run is None:
        raise ConceptError("name a model (--model) where there is no run to take it from")
    located = Located(component=layer) if layer else locate(_given(run), concepts)
    note(describe(located))
    job = EditJob(
        concepts=concepts,
        model=model or model_of(_given(run)),
        located=located,
        out=out,
        settings=settings(ridge=ridge, preserve=preserve),
        scorer=scorer,
        images=images,
    )
    return edit_batch(job, note=note)


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


def _given(run: Path | None) -> Path:
    assert run is not None
    return run
