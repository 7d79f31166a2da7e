"""From a user's request to an `EditPlan`: concepts, components, model, settings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from engine.editing.editable import default_components, editables, edited_with
from engine.editing.first_layer import is_clip
from engine.editing.published import RIDGE as PUBLISHED_RIDGE
from engine.files import refuse_inside, refuse_occupied
from engine.model.components import Networks
from engine.model.defaults import default_sampling
from engine.model.opening import check_model, count_steps, open_skeleton, open_tokenizers
from engine.model.registry import default_scorer, unpinned
from engine.model.scorer import check_scorer
from jobs.cluster.connection import Cluster
from jobs.editing.edit import edit_batch
from jobs.editing.key_workers import shared
from jobs.editing.locate import locate, locate_set
from jobs.editing.manifest import MANIFEST
from jobs.editing.plan import EditPlan, in_process
from jobs.editing.together import check_together, edited_texts
from jobs.input.concepts import check_concepts, read_concepts, read_numbered, refuse_lines
from jobs.input.rows import Problem
from jobs.runs.progress import Note, unscored
from jobs.runs.trace_run import open_run
from schemas.component import Part
from schemas.concept import MAX_WEIGHT, Concept, plain_text
from schemas.documents import checked
from schemas.edit_settings import EditSettings
from schemas.errors import ConceptError
from schemas.manifest import EditManifest, EditSite
from schemas.numerics import Numerics
from schemas.plan import TracePlan

AUTO = "auto"
"""The value of --layer that leaves the choice to the run."""

MOST_IMAGES = 1000
"""Most images of each prompt, which are all held in memory."""
Name = Annotated[str, Field(min_length=1)]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class EditRequest:
    """The user's request; None means the default."""

    out: Path
    run: str | Path | None = None
    """Run whose top-ranked text-encoder component is edited."""
    layers: tuple[str, ...] = ()
    """Components to edit instead, networks, blocks and layers that stand for their components, or
    patterns with `*`; AUTO or nothing: the MLPs where the run located the attribute."""
    component_set: str | None = None
    """The set of the run whose components are edited instead."""
    model: Name | None = None
    scorer: Name | None = None
    images: Annotated[int, Field(ge=0, le=MOST_IMAGES)] = 2
    ridge: float | None = None
    preserve: float | None = None
    general: float | None = None
    exactly: Path | None = None
    """Concept file of names that must not change at all."""
    keep: Path | None = None
    """Concept file of names that are kept besides the model's own."""
    forms: bool = True
    """Whether other forms of a concept, as its plural, are edited with it."""
    embeddings: bool = False
    """Whether the concepts' own token embeddings move first."""
    objective: Literal["residual", "published"] = "residual"
    full_model: bool = False
    overwrite: bool = False
    """Whether an edit at `out` is replaced."""
    with_shared: bool = False
    """Whether single-stream blocks may be edited, whose projections image and text share."""
    cluster: Cluster | None = None
    """The Ray cluster whose actors share the prompts; None: this process alone."""


def run_edit(concepts: tuple[Concept, ...], request: EditRequest, *, note: Note) -> EditManifest:
    """Make an edit and return its manifest, after all checks that are cheap."""
    return edit_batch(plan_edit(concepts, request, note=note), note=note)


def plan_edit(concepts: tuple[Concept, ...], request: EditRequest, *, note: Note) -> EditPlan:
    """Return the plan of a request, checked against the run and the model's configs."""
    request = checked(EditRequest, request, error=ConceptError)
    concepts = tuple(concepts)
    check_concepts(concepts)
    refuse_occupied(request.out, replacing=MANIFEST if request.overwrite else None)
    refuse_inside(request.out, error=ConceptError)
    request = _without_auto(request)
    run = None if request.run is None else open_run(request.run)
    plan = None if run is None else run.plan
    located, layers = _located(request, concepts, plan)
    request = replace(request, layers=layers)
    name = request.model or _given(plan).model
    check_model(name)
    check_together(
        concepts, tokenizers=list(open_tokenizers(name).values()), forms=_has_forms(request)
    )
    # A run's own numerics belong to its own model only.
    same = plan if plan and name in (plan.model, unpinned(plan.model)) else None
    if plan and not same and request.layers:
        raise ConceptError(
            f"run {request.run} is of model {plan.model!r}, and --layer says what is edited, so "
            "that nothing is read of it: leave --from-run out"
        )
    _check_kept(request, concepts)
    skeleton = open_skeleton(name)
    if request.embeddings and not any(is_clip(e.module) for e in skeleton.encoders):
        raise ConceptError(f"--embeddings moves CLIP's token embeddings, and {name} has no CLIP")
    components = editables(
        skeleton,
        request.layers or _located_components(request, located, skeleton),
        with_shared=request.with_shared,
    )
    note(describe(located, components, of_set=request.component_set))
    if request.embeddings:
        note("the token embeddings that only the concepts use move first")
    if run and located.run and (said := unscored(run)):
        note(f"warning: {said}")
    if located.is_doubtful:
        note(
            "warning: the 95% interval of this effect reaches zero, so that these captions do "
            "not show it to be causal: look at the images, trace more captions, or name a --layer"
        )
    scorer = request.scorer or (same.scorer if same else default_scorer(name))
    check_scorer(scorer)
    numerics = same.numerics if same else default_numerics(name)
    count_steps(name, scheduler=numerics.scheduler, steps=numerics.steps)
    return EditPlan(
        concepts=concepts,
        model=name,
        located=located,
        out=request.out,
        settings=settings(request, components, concepts),
        numerics=numerics,
        scorer=scorer,
        images=request.images,
        full_model=request.full_model,
        overwrite=request.overwrite,
        workers=shared(request.cluster) if request.cluster else in_process,
    )


def _located(
    request: EditRequest, concepts: tuple[Concept, ...], plan: TracePlan | None
) -> tuple[EditSite, tuple[str, ...]]:
    """Return why components are edited, and their names if they are known: those of a set or of
    --layer."""
    if request.component_set is None:
        return _site(request, concepts, plan), request.layers
    if request.run is None:
        raise ConceptError("--set is a set of a run: name the run (--from-run)")
    if request.layers:
        raise ConceptError("--set and --layer both name components: leave one out")
    return locate_set(request.run, request.component_set, concepts)


def _without_auto(request: EditRequest) -> EditRequest:
    if AUTO not in request.layers:
        return request
    if len(request.layers) > 1:
        raise ConceptError("--layer auto stands alone: leave it out, or the other layers")
    return replace(request, layers=())


def _located_components(
    request: EditRequest, located: EditSite, model: Networks
) -> tuple[str, ...]:
    """Return the components to edit when no layer is named; the published objective edits one
    matrix."""
    if request.objective == "published":
        return (located.component,)
    if located.mean_ie is None:
        return default_components(model)
    return edited_with(model, located.component)


def _site(request: EditRequest, concepts: tuple[Concept, ...], plan: TracePlan | None) -> EditSite:
    """Return the component to edit: the one that is named, that a run located, or the default of a
    transformer. `plan`: of the run that is named."""
    if request.layers and (request.model or request.run):
        return EditSite(component=request.layers[0])
    name = request.model or (plan.model if plan else None)
    if request.layers or name is None:
        raise ConceptError("name a run (--from-run), or both a model and a component (--layer)")
    if plan is None or Part.TEXT_ENCODER not in plan.parts:
        check_model(name)
        if found := default_components(open_skeleton(name)):
            return EditSite(component=found[0])
    if request.run:
        return locate(request.run, concepts)
    raise ConceptError("name a run (--from-run), or a component (--layer) besides the model")


def _has_forms(request: EditRequest) -> bool:
    """Return whether other forms of a concept are edited: the published objective has none."""
    return request.forms and request.objective == "residual"


def _check_kept(request: EditRequest, concepts: Sequence[Concept]) -> None:
    """Raise ConceptError if a name that is to be kept is edited, nothing would keep it, or its row
    has what no kept name has."""
    edited = edited_texts(concepts, forms=_has_forms(request))
    for option, path in (("--keep", request.keep), ("--exactly", request.exactly)):
        if path is None:
            continue
        if request.objective == "published":
            raise ConceptError(f"the published objective keeps nothing: leave out {option}")
        problems: list[Problem] = []
        for line, concept in read_numbered(path):
            if said := edited.get(plain_text(concept.concept)):
                wrong = f"{option} keeps {concept.concept!r}, which {said}: leave it out of one"
                problems.append((line, wrong))
            elif unread := _unread(concept, ("kind", "prompts")):
                wrong = f"a kept name has no {unread}: leave out that of {concept.concept!r}"
                problems.append((line, wrong))
        refuse_lines(path, problems)
    if request.keep and request.preserve == 0:
        raise ConceptError("--keep has no effect with --preserve 0: give it a weight")


def _unread(concept: Concept, read: Sequence[str]) -> str | None:
    """Return a field of a concept that has a value and is not among those that are read."""
    plain = Concept(concept=concept.concept)
    given = (n for n in Concept.model_fields if getattr(concept, n) != getattr(plain, n))
    return next((name for name in given if name not in read), None)


def default_numerics(model: str) -> Numerics:
    """Return the steps and guidance that a model's images are drawn with by default."""
    sampling = default_sampling(model)
    return Numerics(steps=sampling.steps, guidance=sampling.guidance)


def describe(located: EditSite, components: Sequence[str], *, of_set: str | None = None) -> str:
    """Return one line that says which components are edited and why."""
    if of_set is not None:
        done = "" if located.mean_ie is None else f", restored together {located.mean_ie:+.4f}"
        return f"editing {', '.join(components)}: the set {of_set!r} of {located.run}{done}"
    if located.mean_ie is None:
        return f"editing {', '.join(components)}, which no run has ranked"
    over = f"attribute {located.attribute}" if located.attribute else "all attributes"
    interval = (
        ""
        if located.ie_low is None or located.ie_high is None
        else f" (95 % interval {located.ie_low:+.4f} to {located.ie_high:+.4f})"
    )
    return (
        f"editing {', '.join(components)}: {located.component} has the highest mean indirect "
        f"effect on the target's score, {located.mean_ie:+.4f}{interval} over {over} of "
        f"{located.run}"
    )


def settings(
    request: EditRequest, components: Sequence[str], concepts: Sequence[Concept]
) -> EditSettings:
    """Return the default settings, replaced by the given ones."""
    for option in ("ridge", "preserve", "general"):
        value = getattr(request, option)
        if value is not None and not 0 <= value <= MAX_WEIGHT:
            raise ConceptError(f"--{option} must be from 0 to {MAX_WEIGHT:g}, not {value}")
    if request.ridge == 0:
        raise ConceptError("--ridge must be positive: without it the solution is not unique")
    if request.objective == "published":
        if len(components) > 1:
            raise ConceptError("the published objective edits one component: give one --layer")
        if request.embeddings:
            raise ConceptError("the published objective moves no --embeddings: leave them out")
        _check_published(request, concepts)
        ridge = PUBLISHED_RIDGE if request.ridge is None else request.ridge
        return EditSettings(
            components=tuple(components), objective="published", ridge=ridge, forms=request.forms
        )
    given = {
        "ridge": request.ridge,
        "preserve": request.preserve,
        "general": request.general,
        "exactly": read_concepts(request.exactly) if request.exactly else None,
        "keep": read_concepts(request.keep) if request.keep else None,
    }
    return replace(
        EditSettings(
            components=tuple(components), forms=request.forms, embeddings=request.embeddings
        ),
        **{k: v for k, v in given.items() if v is not None},
    )


def _check_published(request: EditRequest, concepts: Sequence[Concept]) -> None:
    """Raise ConceptError for a weight or column that the published objective does not read."""
    for option in ("preserve", "general"):
        if getattr(request, option) is not None:
            raise ConceptError(f"the published objective has no --{option}: leave it out")
    for concept in concepts:
        if unread := _unread(concept, ("replacement", "kind", "mode")):
            raise ConceptError(
                f"the published objective does not read the {unread} of {concept.concept!r}: "
                "leave it out"
            )


def _given(value: T | None) -> T:
    assert value is not None
    return value
