"""Plans that trace exactly what a screened run ranks first, on a share of its captions.

The hash of a caption says, whatever the screen found, what it is for: some captions are traced
exactly, one half of the others is ranked on, and the other half is read by estimates alone. What is
chosen therefore tells nothing about the captions that it is estimated on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import ceil

from jobs.query.select import opened_views
from jobs.runs.progress import progress_of
from jobs.runs.trace_run import TraceRun
from schemas.caption import Caption
from schemas.caption_filter import CaptionFilter
from schemas.component import Part
from schemas.errors import PlanError
from schemas.exact_states import ChosenStates, ExactStates, state_name
from schemas.intervention import TokenRole
from schemas.plan import TracePlan
from schemas.views import IS_RANKED

LEAST_CAPTIONS = 5
"""Captions of each use, with fewer of which the screen has no weight in an estimate."""
DEFAULT_SHARE = 0.25
RANKED = f"""
SELECT component, token, step_start, step_stop, avg(ie) AS ie
FROM caption_effects
WHERE {IS_RANKED} AND intervention = $intervention AND attribute = $attribute AND part = $part
  AND measure = $measure AND noise_sigmas = $noise AND patch_kind = $patch
  AND list_contains($captions, caption_id)
GROUP BY ALL ORDER BY ie DESC, component, token, step_start, step_stop
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactRequest:
    """The request for an exact run of a screened one."""

    top: int
    """States of each attribute and part, the first of the screen's ranking."""
    share: float = DEFAULT_SHARE
    """The share of each attribute's captions that is traced."""
    random: int | None = None
    """States drawn from the others; by default as many as `top`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Uses:
    """Captions of an attribute by what they are for."""

    exact: tuple[Caption, ...]
    ranked: tuple[Caption, ...]


def exact_plan(screened: TraceRun, request: ExactRequest) -> TracePlan:
    """Return the plan of a screened run without its screen, of what its ranking chose.

    PlanError: the run is not a whole screened one, or has too few captions or states.
    """
    plan = screened.plan
    _check_whole(screened)
    attributes = dict.fromkeys(caption.attribute for caption in plan.captions)
    uses = {name: _uses(screened, name, request) for name in attributes}
    measure = "target" if "target" in plan.measures else plan.measures[0]
    chosen = list(_chosen(screened, uses, request, measure))
    names = [name.partition("@")[::2] for each in chosen for name in each.every]
    taken = {caption.id for each in uses.values() for caption in each.exact}
    components = [c.name for c in screened.components if c.name in {name for name, _ in names}]
    places = {where for _, where in names}
    windows = {where for where in places if where[0].isdigit()}
    fields = plan.model_dump() | {
        "captions": [caption for caption in plan.captions if caption.id in taken],
        "components": components,
        "consecutive": 1,
        "windows": sorted(windows, key=lambda text: [*map(int, text.split(":"))]) or plan.windows,
        "tokens": [role for role in plan.tokens if role.value in places] or plan.tokens,
        "screen": None,
        "slab_components": len(components),
        "slab_windows": max(1, len(windows)),
        "exact_states": ExactStates(
            chosen_from=screened.id,
            measure=measure,
            ranked_captions=tuple(c.id for each in uses.values() for c in each.ranked),
            share=request.share,
            chosen=tuple(chosen),
        ),
    }
    return TracePlan.model_validate(fields)


def _check_whole(screened: TraceRun) -> None:
    if not screened.plan.screen:
        raise PlanError(
            f"run {screened.name} was not screened: --from-run takes one of "
            "`dqf trace submit --screen relp`"
        )
    progress = progress_of(screened)
    if progress.done < progress.total:
        raise PlanError(
            f"run {screened.name} has screened {progress.done} of {progress.total} units, and the "
            f"rest may change its ranking: {screened.resume_hint()} continues it"
        )


def _uses(screened: TraceRun, attribute: str, request: ExactRequest) -> _Uses:
    captions = [c for c in screened.plan.captions if c.attribute == attribute]
    by_hash = sorted(captions, key=lambda c: sha256(f"exact {c.id}".encode()).digest())
    exact = ceil(request.share * len(captions) - 1e-9)
    ranked = (len(captions) - exact) // 2
    if min(exact, ranked) < LEAST_CAPTIONS:
        raise PlanError(
            f"run {screened.name} has {len(captions)} captions of attribute {attribute!r}: at "
            f"--share {request.share:g} {exact} are traced exactly and {ranked} ranked on, and "
            f"each takes {LEAST_CAPTIONS}"
        )
    return _Uses(exact=tuple(by_hash[:exact]), ranked=tuple(by_hash[exact : exact + ranked]))


def _chosen(
    screened: TraceRun, uses: dict[str, _Uses], request: ExactRequest, measure: str
) -> Iterator[ChosenStates]:
    """Yield the states of each attribute and part, from their ranking on the captions for it."""
    plan = screened.plan
    only = CaptionFilter.parsed(plan.known, plan.min_te, measures=plan.measures)
    with opened_views(screened, only=only) as views:
        for attribute, of_attribute in uses.items():
            for part in plan.parts:
                parameters = {
                    "intervention": plan.interventions[0].value,
                    "attribute": attribute,
                    "part": part.value,
                    "measure": measure,
                    "noise": plan.numerics.sweep[0],
                    "patch": plan.patches[0].value,
                    "captions": [caption.id for caption in of_attribute.ranked],
                }
                roles = {"all", *(role.value for role in TokenRole)}
                ranking = [
                    state_name(
                        part,
                        row["component"],
                        window=(row["step_start"], row["step_stop"]),
                        token=row["token"],
                    )
                    for row in views.query(RANKED, parameters).to_pylist()
                    if row["token"] in roles
                ]
                yield _drawn(screened, attribute, part, ranking, request)


def _drawn(
    screened: TraceRun, attribute: str, part: Part, ranking: Sequence[str], request: ExactRequest
) -> ChosenStates:
    """Return the first of a ranking, and some of the others by their hashes."""
    if request.top >= len(ranking):
        raise PlanError(
            f"run {screened.name} ranks {len(ranking)} states of the {part} for attribute "
            f"{attribute!r}: --exact takes fewer"
        )
    rest = sorted(
        ranking[request.top :],
        key=lambda name: sha256(f"{screened.id} {attribute} {name}".encode()).digest(),
    )
    count = request.top if request.random is None else request.random
    return ChosenStates(
        attribute=attribute,
        part=part,
        top=tuple(ranking[: request.top]),
        random=tuple(rest[:count]),
        screened=len(ranking),
    )
