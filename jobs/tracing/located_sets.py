"""A run's ranking on one half of its captions, from which sets are made for the other half."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from jobs.query.rank import Choice, check_choice
from jobs.query.select import opened_views
from jobs.runs.trace_run import TraceRun
from schemas.caption import Caption
from schemas.caption_filter import CaptionFilter
from schemas.component import Part
from schemas.errors import PlanError
from schemas.exact_states import state_name
from schemas.intervention import PatchKind, TokenRole
from schemas.views import IS_RANKED

LEAST_CAPTIONS = 8
"""Captions of a half, with fewer of which no share of the total effect is known."""
RANKED = f"""
SELECT component, kind, token, step_start, step_stop, avg(ie) AS ie,
  count(DISTINCT caption_id) AS captions
FROM caption_effects JOIN components USING (component, part)
WHERE {IS_RANKED} AND intervention = 'restore' AND attribute = $attribute AND part = $part
  AND measure = $measure AND noise_sigmas = $noise AND list_contains($captions, caption_id)
  AND (patch_kind = $patch OR ($patch = 'contribution' AND NOT has_contribution))
  AND component NOT LIKE '%..%'
GROUP BY ALL ORDER BY ie DESC, component, token, step_start, step_stop
"""
"""States by their mean effect; of what adds its whole output the state is the contribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetsRequest:
    """The request for sets of a run."""

    attributes: tuple[str, ...] = ()
    """By default all of the run's."""
    part: Part | None = None
    """By default every part that the run traced, each with sets of its own."""
    patch: PatchKind = PatchKind.STATE
    measure: str = "target"
    top: int = 13
    """Size of the largest set."""
    random: int = 3
    """Random sets of each size."""
    seed: int = 0
    share: float = 0.9
    """The share of the total effect that a greedy set reaches; 0 for no greedy set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A ranked component at its steps or token."""

    part: Part
    component: str
    kind: str
    token: str
    step_start: int
    step_stop: int

    @property
    def text(self) -> str:
        """Its name in a set."""
        window = self.step_start, self.step_stop
        return state_name(self.part, self.component, window=window, token=self.token)

    def overlaps(self, other: "State") -> bool:
        """Return whether two states are of one component at common steps; tokens of a text
        encoder may be common."""
        is_same = self.component == other.component
        return is_same and self.step_start < other.step_stop and other.step_start < self.step_stop


Group = tuple[str, Part]
"""An attribute and a part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """The halves of a run's captions, and the ranking on one of them."""

    request: SetsRequest
    source: TraceRun
    ranked: tuple[Caption, ...]
    held_out: tuple[Caption, ...]
    states: Mapping[Group, tuple[State, ...]]
    only: CaptionFilter
    """The captions that the run's plan says to read, of which rankings and rounds are."""


def locate_sets(source: TraceRun, request: SetsRequest) -> Located:
    """Return the ranking of one half of a run's captions.

    PlanError: the run lacks what is asked for, or a half has fewer than LEAST_CAPTIONS captions.
    """
    _check_request(source, request)
    plan = source.plan
    only = CaptionFilter.parsed(plan.known, plan.min_te, measures=plan.measures)
    halves = {name: _halves(source, name) for name in _attributes(source, request)}
    parts = [request.part] if request.part else list(plan.parts)
    states: dict[Group, tuple[State, ...]] = {}
    with opened_views(source, only=only) as views:
        for attribute, (ranked, _) in halves.items():
            for part in parts:
                rows = views.query(
                    RANKED,
                    {
                        "attribute": attribute,
                        "part": part.value,
                        "measure": request.measure,
                        "noise": plan.numerics.sweep[0],
                        "captions": [caption.id for caption in ranked],
                        "patch": request.patch.value,
                    },
                ).to_pylist()
                states[attribute, part] = _apart(source, attribute, part, rows)
    return Located(
        request=request,
        source=source,
        ranked=tuple(caption for ranked, _ in halves.values() for caption in ranked),
        held_out=tuple(caption for _, held_out in halves.values() for caption in held_out),
        states=states,
        only=only,
    )


def _check_request(source: TraceRun, request: SetsRequest) -> None:
    choice = Choice(
        part=request.part and request.part.value,
        measure=request.measure,
        patch_kind=request.patch.value,
    )
    check_choice(source, choice)
    for attribute in request.attributes:
        check_choice(source, Choice(attribute=attribute))
    if not source.components:
        raise PlanError(f"run {source.name} ranks no components: sets are made from one that does")


def _attributes(source: TraceRun, request: SetsRequest) -> Sequence[str]:
    every = dict.fromkeys(caption.attribute for caption in source.plan.captions)
    return list(dict.fromkeys(request.attributes or every))


def _halves(source: TraceRun, attribute: str) -> tuple[list[Caption], list[Caption]]:
    """Return an attribute's captions to rank on, and those to score sets on, as many or one fewer;
    which is which follows from their hashes."""
    captions = [c for c in source.plan.captions if c.attribute == attribute]
    by_hash = sorted(captions, key=lambda c: sha256(f"half {c.id}".encode()).digest())
    ranked = by_hash[: -(-len(by_hash) // 2)]
    held_out = [caption for caption in captions if caption not in ranked]
    if len(held_out) < LEAST_CAPTIONS:
        raise PlanError(
            f"run {source.name} has {len(captions)} captions of attribute {attribute!r}, so that a "
            f"half has {len(held_out)}: sets need {LEAST_CAPTIONS} in each half"
        )
    return [caption for caption in captions if caption in ranked], held_out


def _apart(
    source: TraceRun, attribute: str, part: Part, rows: Sequence[Mapping[str, Any]]
) -> tuple[State, ...]:
    """Return the ranked states, without those that overlap with one before."""
    captions = max((row["captions"] for row in rows), default=0)
    if captions < LEAST_CAPTIONS:
        raise PlanError(
            f"run {source.name} has scores of {captions} captions of attribute {attribute!r} to "
            f"rank the {part} on: sets need {LEAST_CAPTIONS}"
        )
    roles = {role.value for role in TokenRole}
    states: list[State] = []
    for row in rows:
        fields = ("component", "kind", "token", "step_start", "step_stop")
        state = State(part=part, **{name: row[name] for name in fields})
        if state.token in roles and not any(map(state.overlaps, states)):
            states.append(state)
    if len(states) < 2:
        raise PlanError(
            f"run {source.name} ranks {len(states)} component of the {part}: sets need two, of "
            "which one is left out"
        )
    return tuple(states)
