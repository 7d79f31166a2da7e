"""The runs of one unit: reference runs, and patched runs with the source of each activation.

A reference run is the clean run, the corrupted run or another source run. A patched run follows one
of them, its base, until its window opens; while it is open, the activation of a component is the
mean over the source runs (zero without any).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from engine.model.components import Site, choose, list_sites
from engine.model.hooks import HookPoint, Side
from engine.model.model import Diffusion, TextEncoder
from engine.model.seeds import derived_seed
from engine.model.tokens import find_subjects
from schemas.component import TEXT_ENTRIES, TEXT_ENTRY_KINDS, Component, Part
from schemas.component_set import own_patch
from schemas.concept import plain_text
from schemas.errors import PlanError, UnknownComponent
from schemas.intervention import READ_TEXTS, Intervention, PatchKind, TokenRole, allows
from schemas.numerics import Numerics
from schemas.unit import Unit
from schemas.window import Window

CLEAN, CORRUPTED = 0, 1
"""Indexes of the two runs of every unit among its reference runs."""
REFERENCE_LABELS = ("the clean run", "the corrupted run")
OTHER_DRAW = " of another draw"
"""A stream of noise that no corrupted run of a plan uses, whatever the number of draws."""
THROUGH = ".."
"""Joins the names of the first and the last of consecutive components that are patched together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A run without a patch: the clean run, the corrupted run or another source run."""

    text: str
    seed: int
    is_noised: bool = False
    noise_stream: str = ""
    """Stream of the noise; another stream is another draw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """One patched run."""

    component: str
    """The name of a component or of a set."""
    sites: tuple[Site, ...] = field(hash=False)  # a head's has a slice
    intervention: Intervention
    window: Window
    base: int
    """The reference run that the patched run follows until its window opens."""
    sources: tuple[int, ...]
    """The reference runs whose mean activation replaces the component's own."""
    patch_kind: PatchKind = PatchKind.STATE
    token: str = "all"
    positions: tuple[int, ...] | None = None
    token_text: str | None = None
    """The tokens at the positions, as the tokenizer writes them."""
    members: tuple["Patch", ...] = ()
    """The patches of a set's components, all of one row; the set has no sites of its own."""

    @property
    def of_denoiser(self) -> tuple["Patch", ...]:
        """The patches of the denoiser's components that it is made of."""
        return tuple(part for part in self.members or (self,) if part.positions is None)

    @property
    def of_text(self) -> tuple["Patch", ...]:
        """The patches of the text encoders' components that it is made of."""
        return tuple(part for part in self.members or (self,) if part.positions is not None)

    @property
    def label(self) -> str:
        """Name of the run in messages."""
        what = "" if self.patch_kind is PatchKind.STATE else f"the {self.patch_kind} of "
        return f"the run of {self.intervention} at {what}{self.component}"

    def open_at(self, step: int) -> tuple["Patch", ...]:
        """Return the patches of the denoiser's components that are made at a step."""
        return tuple(p for p in self.of_denoiser if p.window[0] <= step < p.window[1])


def reference_runs(unit: Unit, numerics: Numerics) -> list[Reference]:
    """Return the unit's reference runs: clean, corrupted, then the other source runs that it needs.

    PlanError: the caption of a source run or a counterfactual is missing.
    """
    caption = unit.caption
    corrupted = Reference(text=caption.caption, seed=unit.seed, is_noised=True)
    if numerics.corruption == "counterfactual":
        corrupted = Reference(text=caption.counterfactual_text(numerics.occurrence), seed=unit.seed)
        for control in (Intervention.OTHER_DRAW, Intervention.MATCHED):
            if control in unit.interventions:
                raise PlanError(
                    f"intervention {control} needs corruption by noise: with counterfactuals "
                    "its source is the corrupted run"
                )
    runs = [Reference(text=caption.caption, seed=unit.seed), corrupted]
    for intervention in unit.interventions:
        runs += [run for run in _other_sources(unit, intervention, numerics) if run not in runs]
    return runs


def _other_sources(unit: Unit, intervention: Intervention, numerics: Numerics) -> list[Reference]:
    """Return the source runs of an intervention besides the clean and the corrupted run."""
    caption, seed = unit.caption, unit.seed
    if intervention is Intervention.OTHER_SEED and unit.part is Part.DENOISER:
        return [Reference(text=caption.caption, seed=derived_seed("other seed", seed))]
    if intervention is Intervention.MEAN:
        if not unit.references:
            raise PlanError("mean ablation needs references: captions whose mean is taken")
        return [Reference(text=text, seed=seed) for text in unit.references]
    if intervention in (Intervention.OTHER_CAPTION, Intervention.RESAMPLE):
        return [Reference(text=_unrelated(unit), seed=seed)]
    if intervention is Intervention.EMPTY_TEXT and unit.part is Part.DENOISER:
        return [Reference(text="", seed=seed)]
    if intervention is Intervention.OTHER_DRAW:
        text = caption.caption
        return [Reference(text=text, seed=seed, is_noised=True, noise_stream=OTHER_DRAW)]
    if intervention is Intervention.MATCHED and caption.counterfactual is not None:
        return [Reference(text=caption.counterfactual_text(numerics.occurrence), seed=seed)]
    return []


def _unrelated(unit: Unit) -> str:
    """Return the caption of `resample` and of the other-caption control, drawn among all unrelated
    references."""
    caption = unit.caption
    subject = plain_text(caption.subject)
    texts = [text for text in unit.references if subject not in plain_text(text)]
    if not texts:
        raise PlanError(
            f"no reference is unrelated to {caption.caption!r}: give references without "
            f"{caption.subject!r} for other-caption and resample"
        )
    drawn = derived_seed("other caption", caption.caption, caption.subject, unit.seed, unit.draw)
    return texts[drawn % len(texts)]


def list_patches(model: Diffusion, unit: Unit, numerics: Numerics) -> list[Patch]:
    """Return the unit's patched runs, ordered by the start of their windows.

    UnknownComponent, PlanError: a component, the subject or a source run is missing.
    """
    runs, sites = reference_runs(unit, numerics), list_sites(model)
    groups = component_groups(sites, unit.components)
    tokens = {e.name: _token_groups(e, unit, numerics) for e in model.encoders}
    singles = [
        patch
        for window in sorted(unit.windows)
        for name, group in groups.items()
        for intervention in unit.interventions
        for patch_kind in unit.patches
        if allows(intervention, patch_kind, joint(name, group), unit.caption)
        for patch in _at_tokens(
            replace(
                _patch(unit, intervention, patch_kind, runs, numerics),
                component=name,
                sites=tuple(
                    s for site in group for s in _patched_at(site, intervention, patch_kind)
                ),
                window=window,
            ),
            None if unit.part is Part.DENOISER else tokens[name.split(".")[0]],
        )
        if unit.has(name, window=window, token=patch.token)
    ]
    together = _set_patches(model, {site.component.name: site for site in sites}, unit, numerics)
    return sorted([*singles, *together], key=lambda patch: patch.window[0])


def _patch(
    unit: Unit,
    intervention: Intervention,
    patch_kind: PatchKind,
    runs: Sequence[Reference],
    numerics: Numerics,
) -> Patch:
    """Return a patched run of an intervention, of no component yet."""
    return Patch(
        component="",
        sites=(),
        intervention=intervention,
        patch_kind=patch_kind,
        window=(0, 0),
        base=CORRUPTED if intervention.changes_corrupted else CLEAN,
        sources=source_places(unit, intervention, runs, numerics),
    )


def _set_patches(
    model: Diffusion, sites: Mapping[str, Site], unit: Unit, numerics: Numerics
) -> Iterator[Patch]:
    """Yield the patched runs of the unit's sets, each made of those of its members."""
    runs, encoders = reference_runs(unit, numerics), {e.name: e for e in model.encoders}
    for component_set, intervention, patch_kind in product(
        unit.sets, unit.interventions, unit.patches
    ):
        if not component_set.allows(intervention, patch_kind, unit.caption):
            continue
        whole = replace(
            _patch(unit, intervention, patch_kind, runs, numerics),
            component=component_set.name,
            window=component_set.window,
            token=component_set.token,
        )
        members: list[Patch] = []
        for member in component_set.members:
            component = member.component
            of_member = _patched_at(
                sites[component.name], intervention, own_patch(patch_kind, component)
            )
            patch = replace(whole, component=component.name, sites=of_member, window=member.window)
            if member.token is not None:
                encoder = encoders[component.name.split(".")[0]]
                roles = replace(unit, tokens=(member.token,))
                members += _at_tokens(patch, _token_groups(encoder, roles, numerics))
            else:
                members.append(replace(patch, token="all"))
        yield replace(whole, members=tuple(members))


def component_groups(sites: Sequence[Site], names: Sequence[str]) -> dict[str, tuple[Site, ...]]:
    """Return the sites of each name: of one component, of all of its kind in FIRST..LAST, or of
    all text entries.

    UnknownComponent: the model has no such component, or the two ends are not such a range.
    """
    by_name = {site.component.name: site for site in sites}
    ends_of = {name: name.split(THROUGH) for name in names if name != TEXT_ENTRIES}
    choose([site.component for site in sites], [end for ends in ends_of.values() for end in ends])
    groups = {}
    for name, ends in ends_of.items():
        first, last = by_name[ends[0]].component, by_name[ends[-1]].component
        groups[name] = tuple(
            site
            for site in sites
            if (site.component.part, site.component.kind) == (first.part, first.kind)
            and first.order <= site.component.order <= last.order
        )
        if by_name[ends[-1]] not in groups[name]:
            raise UnknownComponent(
                f"{name!r} is not a range: its ends are not of one kind, in order"
            )
    if TEXT_ENTRIES in names:
        groups[TEXT_ENTRIES] = tuple(s for s in sites if s.component.kind in TEXT_ENTRY_KINDS)
    return groups


def joint(name: str, group: Sequence[Site]) -> Component:
    """Return the components of a group as one, in the place of the first."""
    components = [site.component for site in group]
    return replace(
        components[0],
        name=name,
        num_parameters=sum(component.num_parameters for component in components),
        has_contribution=all(component.has_contribution for component in components),
    )


def consecutive(components: Sequence[Component], count: int) -> list[str]:
    """Return the name of every group of `count` consecutive components of one kind in a network."""
    if count == 1:
        return [component.name for component in components]
    names = []
    for kind in dict.fromkeys((c.kind, c.name.split(".")[0]) for c in components):
        alike = [c.name for c in components if (c.kind, c.name.split(".")[0]) == kind]
        names += [
            f"{alike[n]}{THROUGH}{alike[n + count - 1]}" for n in range(len(alike) - count + 1)
        ]
    return names


def _patched_at(site: Site, intervention: Intervention, patch_kind: PatchKind) -> tuple[Site, ...]:
    """Return where a component is patched: its output, its increments, the text it reads, or the
    block that it is the output of."""
    if intervention is Intervention.SKIP:
        block = HookPoint(site.module, Side.THROUGH)
        return (replace(site, spot=block, positions=None),)  # a single stream's text too
    if intervention in READ_TEXTS:
        sides = (Side.TEXT, Side.MASK) if intervention is Intervention.EMPTY_TEXT else (Side.TEXT,)
        return tuple(replace(site, spot=HookPoint(site.module, side)) for side in sides)
    if patch_kind is PatchKind.STATE:
        return (site,)
    return tuple(replace(site, spot=spot, channels=None) for spot in site.increments)


def source_places(
    unit: Unit, intervention: Intervention, runs: Sequence[Reference], numerics: Numerics
) -> tuple[int, ...]:
    """Return the source runs of an intervention, by their places among a unit's reference runs."""
    if intervention is Intervention.RESTORE:
        return (CLEAN,)
    if intervention in (Intervention.CORRUPT, Intervention.SWAP):
        return (CORRUPTED,)
    return tuple(runs.index(run) for run in _other_sources(unit, intervention, numerics))


@dataclass(frozen=True, slots=True, kw_only=True)
class _TokenGroup:
    """Positions of a text encoder that are patched together."""

    token: str
    positions: tuple[int, ...]
    text: str


def _token_groups(encoder: TextEncoder, unit: Unit, numerics: Numerics) -> list[_TokenGroup]:
    """Return the groups of positions that a unit's token roles stand for in an encoder."""
    ids_1L, (span,) = find_subjects(encoder.tokenizer, [unit.caption], numerics.occurrence)
    texts = encoder.tokenizer.convert_ids_to_tokens(ids_1L[0].tolist())
    return [
        _TokenGroup(
            token=str(group[0]) if role in (TokenRole.WORDS, TokenRole.EACH) else role.value,
            positions=group,
            text=" ".join(texts[position] for position in group),
        )
        for role in unit.tokens
        for group in span.positions(role, len(texts))
    ]


def _at_tokens(patch: Patch, groups: Sequence[_TokenGroup] | None) -> Iterator[Patch]:
    """Yield the patch of the denoiser's component, or a patch per group of tokens of a text
    encoder's component."""
    if groups is None:
        yield patch
        return
    for group in groups:
        yield replace(patch, token=group.token, positions=group.positions, token_text=group.text)
