"""A run's ranking in words: the causal states, their certainty, or why none can be found."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from jobs.query.bound import bounds, comparisons
from jobs.query.noises import noise_text, under
from jobs.query.opened import Views
from jobs.query.placebo import placebos
from jobs.query.rank import CHOSEN, Choice
from jobs.runs.trace_run import TraceRun
from schemas.intervention import Intervention, PatchKind
from schemas.short_names import short_names
from schemas.statistics import DISCOVERY_RATE

FOUND = f"""
SELECT attribute, part, patch_kind, noise_sigmas, count(*) AS states, count_if(is_causal) AS causal,
  max(num_captions) AS captions, min(q_causal) AS least_q,
  arg_max(struct_pack(component, mean_ie, low := ie_low, high := ie_high), mean_ie)
    FILTER (is_causal) AS leader,
  list_sort(list_distinct(flatten(list(controls)))) AS controls,
  count_if(is_causal AND q_run < {DISCOVERY_RATE}) AS causal_in_run,
  list(component ORDER BY mean_ie DESC, component)
    FILTER (is_causal AND coalesce(ie_low, '-inf'::DOUBLE) <= 0) AS unsure
FROM ranking
WHERE intervention = 'restore' AND {CHOSEN}
GROUP BY ALL ORDER BY attribute, part, patch_kind DESC, noise_sigmas
"""
READ = f"SELECT count(DISTINCT caption_id) AS captions FROM caption_effects WHERE {CHOSEN}"
RATE = f"at a false discovery rate of {DISCOVERY_RATE:.0%}"
LEAST_CAPTIONS = 5
"""With fewer, flipping signs gives no one-sided p-value below 0.05: 2^-4 is 0.06."""
SKEW_CAPTIONS = 36
"""With fewer, states that are skewed unlike the others are called causal too often
(docs/statistics.md)."""
NAMED = 3
"""Number of states that a sentence names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Leader:
    """The causal state with the largest effect; an end of its interval without a bound is None."""

    component: str
    mean_ie: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """The restored states of an attribute and part, as the tests judge them: a row of `FOUND`."""

    attribute: str
    part: str
    patch_kind: str
    noise: str
    """As `noise_text` writes it."""
    states: int
    causal: int
    captions: int
    least_q: float
    leader: _Leader | None
    controls: list[str]
    causal_in_run: int
    unsure: list[str] | None


def verdicts(views: Views, choice: Choice) -> list[str]:
    """Return which captions are read if not all, a sentence for each attribute and part that has
    causal states, one for those that have none, and one for each limit.

    Where captions are too few for any discovery, one sentence says so for all. Estimates of a
    screen cannot support a claim: no state of theirs is called causal.
    """
    if views.run.plan.screen:
        return filtered(views, choice)
    rows = [_family(row, views.run) for row in views.query(FOUND, choice.parameters).to_pylist()]
    names = short_names([component.name for component in views.run.components])
    few = [row for row in rows if row.captions < LEAST_CAPTIONS]
    sentences = filtered(views, choice) + [
        _found(row, row.leader, names) for row in rows if row.leader
    ]
    sentences += _not_found([row for row in rows if row not in few and not row.leader])
    if few:
        most = max(row.captions for row in few)
        sentences.append(
            f"Nothing can be found causal for {_names(few)}: with {most} captions an attribute no "
            f"p-value is below {2.0**-most:.2g}; trace {SKEW_CAPTIONS}."
        )
    return sentences + _limits([row for row in rows if row.causal], names, families=len(rows))


def in_short(views: Views, choice: Choice) -> list[str]:
    """Return one sentence for each attribute: how many states are causal and which leads them, or
    that none is found."""
    rows = [_family(row, views.run) for row in views.query(FOUND, choice.parameters).to_pylist()]
    names = short_names([component.name for component in views.run.components])
    of_attribute = defaultdict[str, list[_Family]](list)
    for row in rows:
        of_attribute[row.attribute].append(row)
    return [f"{name}: {_in_short(alike, names)}" for name, alike in of_attribute.items()]


def _in_short(rows: list[_Family], names: Mapping[str, str]) -> str:
    states, causal = sum(row.states for row in rows), sum(row.causal for row in rows)
    leaders = [row.leader for row in rows if row.leader]
    if not leaders:
        captions = max(row.captions for row in rows)
        return (
            f"none of {states} states is found causal in {captions} caption"
            f"{'' if captions == 1 else 's'} (least q {min(row.least_q for row in rows):.2g})."
        )
    leader = max(leaders, key=lambda leader: leader.mean_ie)
    return (
        f"{causal} of {states} states {'is' if causal == 1 else 'are'} causal "
        f"(q < {DISCOVERY_RATE}), led by {names[leader.component]}."
    )


def notes(views: Views, choice: Choice) -> list[str]:
    """Return sentences on how to read a ranking: its placebo, its bound, what may be compared, and
    which captions a control leaves out."""
    sentences = [placebo.sentence for placebo in placebos(views, choice)]
    sentences += _joined([bound.sentence for bound in bounds(views, choice)])
    sentences += comparisons(views.run, part=choice.part)
    return sentences + _unmatched(views.run, choice.attribute)


def _joined(sentences: list[str]) -> list[str]:
    """Return one sentence for those that say the same of several subjects."""
    subjects = defaultdict[str, list[str]](list)
    for sentence in sentences:
        subject, _, said = sentence.partition(": ")
        subjects[said].append(subject)
    return [f"{'; '.join(alike)}: {said}" for said, alike in subjects.items()]


def filtered(views: Views, choice: Choice) -> list[str]:
    """Return that effects are estimates, if they are, and how many captions are read, if not
    all."""
    screen = views.run.plan.screen
    estimated = [
        f"All effects are estimates of a screen ({screen}), for which no patched run was sampled: "
        "they say what to trace, and nothing is called causal."
    ]
    if not views.only:
        return estimated if screen else []
    (row,) = views.query(READ, choice.parameters).to_pylist()
    attribute = choice.attribute
    every = sum(attribute in (None, caption.attribute) for caption in views.run.plan.captions)
    read = f"Read are the {row['captions']} of {every} captions with {views.only}."
    return [*estimated, read] if screen else [read]


def _family(row: dict[str, Any], run: TraceRun) -> _Family:
    leader, noise = row["leader"], noise_text(run, row.pop("noise_sigmas"))
    return replace(_Family(**row, noise=noise), leader=leader and _Leader(**leader))


def _unmatched(run: TraceRun, attribute: str | None) -> list[str]:
    """Return how many captions the matched control leaves out, if it was traced."""
    if Intervention.MATCHED not in run.plan.interventions:
        return []
    captions = [c for c in run.plan.captions if attribute in (None, c.attribute)]
    lacking = sum(caption.counterfactual is None for caption in captions)
    if not lacking:
        return []
    return [
        f"{lacking} of {len(captions)} captions have no counterfactual: the matched control leaves "
        "them out."
    ]


def _limits(rows: list[_Family], names: Mapping[str, str], *, families: int) -> list[str]:
    """Return the limits of the claims of `rows`, which have causal states."""
    sentences = [
        f"{_over(row)} the interval of {_some([names[state] for state in row.unsure])} "
        f"reaches zero though q is under {DISCOVERY_RATE}: by the tests the effect is above zero, "
        "but its size is not known."
        for row in rows
        if row.unsure
    ]
    few = [row for row in rows if row.captions < SKEW_CAPTIONS]
    if few:
        sentences.append(
            f"The claims for {_names(few)} need more captions: with fewer than {SKEW_CAPTIONS} an "
            "attribute they hold their rate only where effects are alike: not where a few states "
            "have rare, large ones below zero."
        )
    if rows and families > 1:
        found, held = sum(row.causal for row in rows), sum(row.causal_in_run for row in rows)
        sentences.append(
            f"These are {families} families of states, each tested by itself at "
            f"{DISCOVERY_RATE:.0%}: over all families of the run together "
            f"{held} of the {found} causal states remain (q_run < {DISCOVERY_RATE})."
        )
    return sentences


def _some(names: list[str]) -> str:
    """Return the first of some names, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _names(rows: list[_Family]) -> str:
    return ", ".join(dict.fromkeys(row.attribute for row in rows))


def _over(row: _Family) -> str:
    """Return the subject of a sentence: attribute, part, what is patched unless it is states, and
    the noise where there are several."""
    return f"{row.attribute}, {row.part}{patched(row.patch_kind)}{under(row.noise)}:"


def patched(patch_kind: str) -> str:
    """Return the words ", contributions" for a list; "" for states, the default."""
    return "" if patch_kind == PatchKind.STATE else f", {patch_kind}s"


def _with_controls(row: _Family) -> str:
    return f" and with the controls {' and '.join(row.controls)}" if row.controls else ""


def _not_found(rows: list[_Family]) -> list[str]:
    """Return one sentence on the families, tested with the same controls, without a causal
    state."""
    alike = defaultdict[str, list[_Family]](list)
    for row in rows:
        alike[_with_controls(row)].append(row)
    sentences: list[str] = []
    for controls, families in alike.items():
        over = "; ".join(_over(row).removesuffix(":") for row in families)
        states = f"none of {families[0].states} states" if len(families) == 1 else "no state"
        fewest, most = min(r.captions for r in families), max(r.captions for r in families)
        captions = f"{most}" if fewest == most else f"{fewest} to {most}"
        sentences.append(
            f"{over}: {states} is found causal {RATE}{controls} ({captions} captions, least q "
            f"{min(row.least_q for row in families):.2g}); more captions are needed to detect "
            "small effects."
        )
    return sentences


def _found(row: _Family, leader: _Leader, names: Mapping[str, str]) -> str:
    # An end without a bound is null.
    low, high = (
        sign + "inf" if end is None else f"{end:.3f}"
        for sign, end in (("-", leader.low), ("+", leader.high))
    )
    return (
        f"{_over(row)} {row.causal} of {row.states} states are causal {RATE}{_with_controls(row)} "
        f"({row.captions} captions), led by {names[leader.component]}: "
        f"{leader.mean_ie:+.3f} [{low}, {high}]."
    )
