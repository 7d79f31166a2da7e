"""Building and checking a plan: every fault is reported before a model loads."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from engine.files import read_bytes
from jobs.input.captions import read_captions
from jobs.tracing.checked_sets import check_sets
from jobs.tracing.counterfactuals import (
    Tokenized,
    check_distinct,
    fits,
    subjects_of,
    tokenized,
    with_counterfactuals,
)
from schemas.caption import Caption
from schemas.component import PAPER_KINDS, TEXT_ENTRIES, Component, Kind, Part
from schemas.component_set import ComponentSet
from schemas.concept import plain_text
from schemas.documents import first_message, first_problem, is_mapping, read_json, read_yaml
from schemas.errors import ModelUnavailable, PlanError
from schemas.intervention import Intervention, PatchKind, allows
from schemas.numerics import Numerics
from schemas.plan import TracePlan
from schemas.printable import shown
from schemas.unit import MARGIN, Unit, alternatives
from schemas.window import expand_windows

if TYPE_CHECKING:
    from engine.model.model import Skeleton

REFERENCES = 8
"""Number of captions that serve as references if a plan needs references and names none."""
REFERRING = {Intervention.MEAN, Intervention.RESAMPLE, Intervention.OTHER_CAPTION}
"""Interventions whose sources are references."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedPlan:
    """A plan that was checked against its model's configs and tokenizer."""

    plan: TracePlan
    components: tuple[Component, ...]
    """The components that it traces, in network order; a range of consecutive ones counts as
    one."""
    steps: int
    """Evaluations of the denoiser in one run of the sampler."""
    is_guided: bool
    """Whether an evaluation of a row has a second half, that of the negative prompt."""
    sets: tuple[ComponentSet, ...] = ()
    """The sets that it traces."""


class WrongField(PlanError):
    """A field that a plan cannot have as it is given."""

    def __init__(self, error: ValidationError) -> None:
        super().__init__(first_message(error))
        self.field, self.problem = first_problem(error)
        """The field, `numerics.dtype` for example, and what is wrong with it."""


def read_plan(path: Path) -> dict[str, object]:
    """Return the fields of a YAML plan file; its `captions` may be a path relative to the file."""
    # JSON is YAML, and the JSON reader is a hundred times faster on a submitted job's long plan.
    read = read_json if path.suffix == ".json" else read_yaml
    fields = read(read_bytes(path, error=PlanError), str(path), error=PlanError)
    if not is_mapping(fields):
        raise PlanError(f"{path} is not a mapping of plan fields such as `model:` and `captions:`")
    for place, value in _leaves(fields):
        if isinstance(value, bool):
            raise PlanError(
                f"{path} has {str(value).lower()} at {place}: a plan has numbers and words alone, "
                'and a word such as "on" or "no" in quotes'
            )
    captions = fields.get("captions")
    if isinstance(captions, str):
        return {**fields, "captions": read_captions(path.parent / captions)}
    return dict(fields)


def _leaves(value: object, place: str = "") -> Iterator[tuple[str, object]]:
    """Yield what a document has, each with its place, such as `numerics.steps`."""
    if is_mapping(value):
        inside = [(f"{place}.{key}".strip("."), part) for key, part in value.items()]
    elif isinstance(value, list):
        inside = [(f"{place}[{n}]", part) for n, part in enumerate(cast("list[object]", value))]
    else:
        yield place, value
        return
    for name, part in inside:
        yield from _leaves(part, name)


def numerics_of(fields: Mapping[str, object]) -> Mapping[str, object]:
    """Return the numerics among a plan's fields; PlanError if they are not a mapping."""
    numerics = fields.get("numerics") or dict[str, object]()
    if not is_mapping(numerics):
        raise PlanError("`numerics` is not a mapping such as `steps: 20`")
    return numerics


def make_plan(fields: Mapping[str, object]) -> TracePlan:
    """Return the plan of `fields`, with the model's defaults for missing fields.

    Where sets are given and neither components nor kinds, sets alone are traced.
    """
    from engine.model.defaults import default_noise, default_sampling
    from engine.model.registry import as_name, default_scorer

    try:
        model = as_name(fields.get("model", "emoji-sd"))
    except ModelUnavailable as error:
        raise PlanError(f"model: {error}") from error
    numerics = numerics_of(fields)
    own = default_sampling(model)
    defaults = {
        "steps": own.steps,
        "guidance": own.guidance,
        "noise_sigmas": default_noise(model),
    }
    scorer = fields.get("scorer") or default_scorer(model)
    complete = {**fields, "model": model, "scorer": scorer, "numerics": {**defaults, **numerics}}
    if fields.get("sets") and not {"components", "kinds"} & fields.keys():
        complete["components"] = ()
    try:
        plan = TracePlan.model_validate(complete)
    except ValidationError as error:
        raise WrongField(error) from error
    plan = _with_references(plan)
    _check_places(plan)
    _check_spellings(plan)
    _check_options(plan)
    if MARGIN in plan.measures:
        plan = plan.model_copy(update={"options": {**subjects_of(plan.captions), **plan.options}})
    return plan


def _with_references(plan: TracePlan) -> TracePlan:
    """Return a plan with references where its interventions read some; PlanError where none does
    and the plan names some."""
    if REFERRING & set(plan.interventions):
        references = plan.references or _spread(plan.captions)
        if len({*references}) < len(references):
            raise PlanError("references has a caption twice: leave one out")
        if references == (plan.captions[0].caption,) and Intervention.MEAN in plan.interventions:
            raise PlanError(
                "intervention mean needs other captions than the one that is traced: name some as "
                "references"
            )
        return plan.model_copy(update={"references": references})
    if plan.references:
        raise PlanError(
            f"references are read by the interventions {', '.join(sorted(REFERRING))} alone: ask "
            "for one of these, or leave the references out"
        )
    return plan


def _check_places(plan: TracePlan) -> None:
    """Raise PlanError for windows, tokens or settings of a part that is not traced."""
    own = Numerics()
    for name in ("noise_at", "cfg_patch"):
        value = getattr(plan.numerics, name)
        if Part.DENOISER not in plan.parts and value != getattr(own, name):
            raise PlanError(
                f"{name} {value!r} is of the denoiser, which is not traced: leave it out, or trace "
                "it too"
            )
    for part, name in ((Part.DENOISER, "windows"), (Part.TEXT_ENCODER, "tokens")):
        given = getattr(plan, name)
        if part not in plan.parts and given != TracePlan.model_fields[name].default:
            raise PlanError(
                f"{name} are of the {part}, which is not traced: leave them out, or trace it too"
            )


def _check_spellings(plan: TracePlan) -> None:
    """Raise PlanError for two spellings of an attribute, each of which would be ranked alone."""
    spellings: dict[str, str] = {}
    for attribute in dict.fromkeys(caption.attribute for caption in plan.captions):
        first = spellings.setdefault(plain_text(attribute), attribute)
        if first != attribute:
            raise PlanError(
                f"captions have the attributes {shown(first)} and {shown(attribute)}, each with "
                "rankings of its own: write one as the other"
            )


def read_options(path: Path) -> Mapping[str, object]:
    """Return a YAML or JSON file's options, the words that an attribute may have, by attribute."""
    fields = read_yaml(read_bytes(path, error=PlanError), str(path), error=PlanError)
    if not is_mapping(fields):
        raise PlanError(f"{path} is not a mapping of attributes such as `color: [red, blue]`")
    return fields


def _check_options(plan: TracePlan) -> None:
    """Raise PlanError if options are not compared, or are of an attribute that no caption has."""
    if plan.options and MARGIN not in plan.measures:
        raise PlanError(f"options are compared by a measure that is not asked for: add {MARGIN}")
    known = {caption.attribute for caption in plan.captions}
    for attribute in plan.options:
        if attribute not in known:
            raise PlanError(
                f"options name attribute {attribute!r}, which no caption has: there are "
                f"{', '.join(sorted(known))}"
            )


def _spread(captions: Sequence[Caption]) -> tuple[str, ...]:
    """Return a few captions, evenly spread over all, as references."""
    texts = list(dict.fromkeys(caption.caption for caption in captions))
    count = min(REFERENCES, len(texts))
    return tuple(texts[n * len(texts) // count] for n in range(count))


def check_plan(plan: TracePlan) -> CheckedPlan:
    """Return the plan with the components it traces; only configs and the tokenizer are opened.

    ModelUnavailable, UnknownComponent, PlanError: the plan cannot be traced; the message says why.
    """
    from engine.model.hub import config_folder

    config_folder(plan.model)  # before torch is imported, which takes seconds

    from engine.model.components import list_components
    from engine.model.guidance import check_guidance, is_guided
    from engine.model.opening import (
        check_model,
        check_size,
        count_steps,
        open_skeleton,
        open_tokenizers,
    )
    from engine.model.registry import pinned
    from engine.model.scorer import check_scorer
    from engine.tracing.component_sets import find_sets
    from engine.tracing.measures import check_measures

    check_scorer(plan.scorer)
    check_measures(plan.measures)
    numerics = plan.numerics
    steps = count_steps(plan.model, scheduler=numerics.scheduler, steps=numerics.steps)
    expand_windows(plan.windows, steps)
    tokenizers = [*open_tokenizers(plan.model).values()]
    read = tokenized(plan, tokenizers)  # once: it takes most of the time of many captions
    given = plan.captions
    check_distinct(given, read)
    plan = with_counterfactuals(plan, read)
    _check_counterfactuals(plan, given, read)
    _check_texts(plan, tokenizers)
    check_model(plan.model)
    check_size(plan.model, height=numerics.height, width=numerics.width)
    skeleton = open_skeleton(plan.model)
    check_guidance(skeleton, numerics)
    _check_replaced(plan, skeleton)
    _check_kinds(plan, list_components(skeleton))
    _check_path(plan, skeleton)
    # Workers fetch later and elsewhere, so the plan records the commit that was checked.
    plan = plan.model_copy(update={"model": pinned(plan.model)})
    traced = _traced(plan, skeleton)
    _check_patches(plan, traced)
    sets = find_sets(skeleton, plan.sets, steps=steps)
    check_sets(plan, sets)
    _check_interventions(plan, traced, sets)
    _check_screen(plan, traced)
    return CheckedPlan(
        plan=plan,
        components=traced,
        steps=steps,
        is_guided=is_guided(skeleton, numerics),
        sets=sets,
    )


def _traced(plan: TracePlan, skeleton: "Skeleton") -> tuple[Component, ...]:
    """Return the components that a plan traces; UnknownComponent: the model lacks one."""
    from engine.model.components import list_components, list_sites
    from engine.model.cut_points import cut_points
    from engine.tracing.interventions import component_groups, consecutive, joint

    if plan.components is None:
        chosen = [
            c
            for c in list_components(skeleton, plan.kinds)
            if c.part in plan.parts and not c.is_dead
        ]
        names = consecutive(chosen, plan.consecutive)
    else:
        names = plan.components
    if _has_bound(plan):
        names = [*names, TEXT_ENTRIES]
    groups, cuts = component_groups(list_sites(skeleton), names), cut_points(skeleton)
    return tuple(
        replace(joint(name, group), is_cut_point=group[-1].component.name in cuts)
        for name, group in groups.items()
        if group[0].component.part in plan.parts
    )


def _check_path(plan: TracePlan, skeleton: "Skeleton") -> None:
    """Raise PlanError if a path is asked for on a model that has only one."""
    if plan.numerics.path != "both" and not skeleton.family.has_pooled:
        raise PlanError(
            f"path {plan.numerics.path}: model {plan.model!r} reads no pooled embedding of the "
            "caption, its text rows are the only path: leave out --path"
        )


def _has_bound(plan: TracePlan) -> bool:
    """Return whether the bound of all text entries together is traced besides the components."""
    bounded = {Intervention.RESTORE, Intervention.CORRUPT} & set(plan.interventions)
    is_of_states = plan.components is None and PatchKind.STATE in plan.patches
    if plan.screen:  # it patches several activations
        return False
    return is_of_states and Part.DENOISER in plan.parts and bool(bounded)


def _check_patches(plan: TracePlan, traced: Sequence[Component]) -> None:
    """Raise PlanError if a contribution is asked of a component that has none.

    Where states are traced too, only components that the plan names need one.
    """
    is_alone = PatchKind.STATE not in plan.patches
    if PatchKind.CONTRIBUTION not in plan.patches or not (is_alone or plan.components):
        return
    lacking = [c for c in traced if not c.has_contribution and c.name != TEXT_ENTRIES]
    if lacking:
        raise PlanError(
            f"{lacking[0].name} adds its whole output, so that its state is its contribution: "
            "trace it with --patch state, or contributions only of --kind resnet, block or layer"
        )


def _check_screen(plan: TracePlan, traced: Sequence[Component]) -> None:
    """Raise PlanError if a screen could not estimate a patch: of several activations together, or
    where a measure has no slope."""
    from engine.tracing.interventions import THROUGH
    from engine.tracing.screening import check_slopes

    if plan.screen is None:
        return
    check_slopes(plan.interventions, plan.measures)
    if plan.sets:
        raise PlanError("a screen estimates what one activation does: leave out --set or --screen")
    for intervention in (Intervention.EMPTY_TEXT, Intervention.SKIP):
        if intervention in plan.interventions:
            raise PlanError(
                f"a screen cannot estimate intervention {intervention}, which is not a small "
                "change of one activation: trace it without --screen"
            )
    for component in traced:
        is_joint = THROUGH in component.name or component.name == TEXT_ENTRIES
        adds_several = component.kind in (Kind.BLOCK, Kind.LAYER)
        if is_joint or (adds_several and PatchKind.CONTRIBUTION in plan.patches):
            raise PlanError(
                f"a screen estimates what one activation does, and {component.name} is patched at "
                "several together: trace it without --screen, or leave it out"
            )


def _check_replaced(plan: TracePlan, skeleton: "Skeleton") -> None:
    """Raise PlanError if an attention would read a text of another length than its caption's."""
    if Intervention.EMPTY_TEXT in plan.interventions and not skeleton.family.reads_padding:
        raise PlanError(
            f"intervention empty-text: model {plan.model!r} reads the tokens of a text and no "
            "padding, and the empty text has fewer than the caption, of which the attention's text "
            "would end early: leave it out, or trace swap, whose two texts are equally long"
        )


def _check_kinds(plan: TracePlan, components: Sequence[Component]) -> None:
    """Raise PlanError if the model has no component of a kind that was asked for."""
    there = {component.kind for component in components}
    if plan.components is not None or plan.kinds == PAPER_KINDS:
        return
    for kind in plan.kinds:
        if kind is Kind.BLOCK and Kind.STREAM_IMAGE in there:
            raise PlanError(
                "kind block: what a transformer's block returns is the network's whole state, and "
                "restoring it is the clean run by construction; trace stream_image, stream_text or "
                "the attentions and feed-forwards of the block"
            )
        if kind not in there:
            raise PlanError(
                f"the model has no component of kind {kind}: it has {', '.join(sorted(there))}"
            )


def _check_texts(plan: TracePlan, tokenizers: Sequence[Any]) -> None:
    """Raise PlanError if a reference, the negative prompt or a text for the scorer would be cut."""
    from engine.model.scorer import check_texts
    from engine.model.tokens import check_lengths

    for tokenizer in tokenizers:
        check_lengths(tokenizer, plan.references, "reference")
        check_lengths(tokenizer, [plan.numerics.negative_prompt], "negative prompt")
    scored = {"caption": [c.caption for c in plan.captions]}
    scored["target"] = [c.target_text for c in plan.captions]
    compared = [text for caption in plan.captions for text in alternatives(plan, caption)]
    scored[MARGIN] = [*scored["target"], *compared]
    check_texts(plan.scorer, [t for name in plan.measures for t in scored.get(name, ())])


def _check_counterfactuals(
    plan: TracePlan, given: Sequence[Caption], read: Sequence[Tokenized]
) -> None:
    """Raise PlanError if a counterfactual of the `given` captions, from which the plan's were made,
    changes other tokens than the subject's."""
    is_corruption = plan.numerics.corruption == "counterfactual"
    if not is_corruption and Intervention.MATCHED not in plan.interventions:
        return
    if not is_corruption and all(caption.counterfactual is None for caption in plan.captions):
        raise PlanError(
            "intervention matched needs captions with a counterfactual, another word of the "
            "subject's kind and as many tokens: no other subject or option of an attribute is "
            "one, so give some the column `counterfactual`"
        )
    needed = (n for n, c in enumerate(given) if is_corruption or c.counterfactual is not None)
    captions = {place: given[place] for place in needed}
    fitting = fits(captions, read, plan.numerics.occurrence)
    for caption, is_fit in zip(captions.values(), fitting, strict=True):
        if not is_fit:
            raise PlanError(
                f"counterfactual {caption.counterfactual!r} does not have as many tokens as "
                f"{caption.subject!r} in {caption.caption!r}, has the same ones, or changes "
                "others: give as many other ones"
            )


def _check_interventions(
    plan: TracePlan, traced: Sequence[Component], sets: Sequence[ComponentSet]
) -> None:
    """Raise PlanError if a part has no component to trace, or an intervention no component or
    source run."""
    from engine.tracing.interventions import reference_runs

    for part in plan.parts:
        of_part = [c for c in traced if c.part is part and c.name != TEXT_ENTRIES]
        if not of_part and plan.components != ():
            raise PlanError(f"no component of the {part} is among those to trace")
        for caption in plan.captions:
            unit = Unit(
                caption=caption,
                seed=0,
                draw=0,
                part=part,
                components=(),
                windows=(),
                interventions=plan.interventions,
                references=plan.references,
            )
            reference_runs(unit, plan.numerics)
    for intervention in plan.interventions:
        cases = product(plan.patches, traced, plan.captions)
        of_sets = product(sets, plan.patches, plan.captions)
        if not any(allows(intervention, *case) for case in cases) and not any(
            each.allows(intervention, kind, caption) for each, kind, caption in of_sets
        ):
            raise PlanError(f"no component to trace can be used with intervention {intervention}")
