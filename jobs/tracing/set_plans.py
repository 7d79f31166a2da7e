"""Plans of sets from a run's ranking: the first, as many at random, and as few as are enough.

A greedy set is found on the ranked half of the captions in rounds, each of them a run of its own:
the first traces the first 1, 2, 3, 5, ... states together, and the next ones the smallest of these
sets that is enough, without one of its states in turn, until none can be left out.
"""

from collections.abc import Callable, Iterator, Sequence
from random import Random

from jobs.query.select import opened_views
from jobs.runs.trace_run import TraceRun
from jobs.tracing.located_sets import Group, Located, State
from schemas.caption import Caption
from schemas.component import Part
from schemas.component_set import Curve, PlannedSet
from schemas.intervention import Intervention
from schemas.located_sets import LocatedSets
from schemas.plan import TracePlan

SHARES = """
SELECT set_name, mean_recovery FROM set_effects
WHERE intervention = 'restore' AND measure = $measure AND attribute = $attribute
"""

TraceRound = Callable[[TracePlan, str], TraceRun]
"""Traces a plan as the run at a location, or finds it traced."""


def sizes_up_to(most: int) -> list[int]:
    """Return 1, 2, 3, 5, 8, ... and the largest size itself."""
    sizes, following = [1], 2
    while following < most:
        sizes, following = [*sizes, following], following + sizes[-1]
    return sizes if most == 1 else [*sizes, most]


def _sizes(located: Located, group: Group) -> list[int]:
    """Return the sizes of a group's sets: the largest leaves a component out."""
    return sizes_up_to(min(located.request.top, len(located.states[group]) - 1))


def top_sets(located: Located, group: Group) -> Iterator[PlannedSet]:
    """Yield the first states of a ranking together, for each size."""
    attribute, part = group
    for size in _sizes(located, group):
        yield _named(f"{part}-top-{size}", located.states[group][:size], attribute, Curve.TOP)


def random_sets(located: Located, group: Group) -> Iterator[PlannedSet]:
    """Yield for each size sets of random states of the same kinds, each set once and never that of
    the first; none where the kinds have no others."""
    attribute, part = group
    states, request = located.states[group], located.request
    for size in _sizes(located, group):
        top = states[:size]
        seen = {frozenset(top)}
        random = Random(f"{request.seed} {attribute} {part} {size}")
        for _ in range(10 * request.random):
            drawn = _drawn(random, states, [state.kind for state in top])
            if frozenset(drawn) not in seen and len(seen) <= request.random:
                name = f"{part}-random-{size}-{len(seen)}"
                yield _named(name, drawn, attribute, Curve.RANDOM)
                seen.add(frozenset(drawn))


def _drawn(random: Random, states: Sequence[State], kinds: Sequence[str]) -> list[State]:
    return [
        state
        for kind in dict.fromkeys(kinds)
        for state in random.sample([s for s in states if s.kind == kind], kinds.count(kind))
    ]


def _named(
    name: str, states: Sequence[State], attribute: str, curve: Curve | None = None
) -> PlannedSet:
    components = tuple(state.text for state in states)
    return PlannedSet(name=name, components=components, attribute=attribute, curve=curve)


def greedy_sets(
    located: Located, part: Part, location: str, trace_round: TraceRound
) -> tuple[list[PlannedSet], list[TraceRun]]:
    """Return the greedy sets of a part that reach the share, and the runs of the rounds that they
    follow from: at `location` with the part and the round's number behind it."""
    chosen: dict[str, tuple[State, ...]] = {}
    rounds: list[TraceRun] = []
    left = [attribute for attribute, of in located.states if of is part]
    while left:
        planned = {
            name: list(_round_sets(located, (name, part), chosen.get(name, ()))) for name in left
        }
        every = [each for of_attribute in planned.values() for each in of_attribute]
        plan = _plan(located, located.ranked, every, None)
        run = trace_round(plan, f"{location}-{part}-round-{len(rounds)}")
        rounds.append(run)
        best = {n: _best(located, run, (n, part), chosen.get(n, ()), planned[n]) for n in left}
        chosen |= {name: states for name, states in best.items() if states}
        left = [name for name, states in best.items() if len(states) > 1]
    sets = [_named(f"{part}-greedy", states, name, Curve.GREEDY) for name, states in chosen.items()]
    return sets, rounds


def _round_sets(located: Located, group: Group, chosen: Sequence[State]) -> Iterator[PlannedSet]:
    """Yield a round's sets: the first of the ranking, then the chosen states but one."""
    if not chosen:
        yield from top_sets(located, group)
        return
    for number, state in enumerate(chosen):
        rest = [other for other in chosen if other is not state]
        yield _named(f"{group[1]}-without-{number}", rest, group[0], Curve.GREEDY)


def _best(
    located: Located,
    run: TraceRun,
    group: Group,
    chosen: Sequence[State],
    planned: Sequence[PlannedSet],
) -> tuple[State, ...]:
    """Return the states that a round chose: the fewest first ones that are enough, or those that
    do best without one; empty if none of its sets is enough."""
    parameters = {"measure": located.request.measure, "attribute": group[0]}
    with opened_views(run, only=located.only) as views:
        rows = views.query(SHARES, parameters).to_pylist()
    found = {row["set_name"]: row["mean_recovery"] or 0.0 for row in rows}
    enough = [each for each in planned if found.get(each.name, 0.0) >= located.request.share]
    if not enough:
        return ()
    best = enough[0] if not chosen else max(enough, key=lambda each: found[each.name])
    return tuple(s for s in located.states[group] if s.text in best.components)


def planned_sets(located: Located) -> TracePlan:
    """Return the plan of a run's first and random sets, on the captions that they were not chosen
    by."""
    return _chosen_plan(located, [], [])


def sets_plan(located: Located, location: str, trace_round: TraceRound) -> TracePlan:
    """Return the same plan with greedy sets, which runs are made for whose names begin with
    `location`."""
    greedy: list[PlannedSet] = []
    rounds: list[TraceRun] = []
    for part in dict.fromkeys(part for _, part in located.states):
        if located.request.share:
            found, runs = greedy_sets(located, part, location, trace_round)
            greedy, rounds = [*greedy, *found], [*rounds, *runs]
    return _chosen_plan(located, greedy, rounds)


def _chosen_plan(
    located: Located, greedy: Sequence[PlannedSet], rounds: Sequence[TraceRun]
) -> TracePlan:
    sets = [
        each
        for group in located.states
        for each in (*top_sets(located, group), *random_sets(located, group))
    ]
    chosen = LocatedSets(
        run=located.source.id,
        measure=located.request.measure,
        ranked_captions=tuple(caption.id for caption in located.ranked),
        seed=located.request.seed,
        share=located.request.share,
        rounds=tuple(run.id for run in rounds),
    )
    return _plan(located, located.held_out, [*sets, *greedy], chosen)


def _plan(
    located: Located,
    captions: Sequence[Caption],
    sets: Sequence[PlannedSet],
    chosen: LocatedSets | None,
) -> TracePlan:
    """Return the plan of the source run with sets in the place of components; a round, which only
    chooses, restores them alone."""
    source, attributes = located.source.plan, {each.attribute for each in sets}
    interventions = [Intervention.RESTORE] + [Intervention.CORRUPT] * (chosen is not None)
    return source.model_copy(
        update={
            "captions": tuple(c for c in captions if c.attribute in attributes),
            "components": (),
            "consecutive": 1,
            "parts": tuple(dict.fromkeys(part for _, part in located.states)),
            "sets": tuple(sets),
            "interventions": tuple(interventions),
            "patches": (located.request.patch,),
            "numerics": source.numerics.at(source.numerics.sweep[0]),
            "references": (),
            "screen": None,
            "located_sets": chosen,
        }
    )
