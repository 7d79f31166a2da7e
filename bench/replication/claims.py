"""The paper's claims as criteria for numbers.

A claim is judged for one attribute (or pair of attributes) by one score. Where an interval decides,
a claim replicates if all of it lies on the claim's side of a bound, does not replicate if all of it
lies on the other, and is undecided otherwise.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from pathlib import Path

import numpy as np

from bench.replication.evidence import (
    ATTRIBUTES,
    FIRST,
    LAST,
    ROLES,
    Interval,
    Row,
    TokenMap,
    opened_finished,
    rows,
    share_of_total,
    token_map,
)
from engine.statistics.composite import q_values
from jobs.query.opened import Views
from schemas.statistics import DISCOVERY_RATE

MOST = 0.5
"""A component carries most of an effect if its share of the total effect exceeds this."""
SHARED = 0.5
"""Two sets of components are the same, for the most part, if their Jaccard index exceeds this."""
LEVEL = 0.05
"""Level of a single judgment; over all of them `bench.replication.correction` decides."""
MIN_CAPTIONS = 8
"""An attribute with fewer captions is not judged."""


class Verdict(StrEnum):
    """The verdict of the numbers on a claim."""

    YES = "replicates"
    NO = "does not replicate"
    OPEN = "is undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One claim judged for one attribute, or pair."""

    about: str
    verdict: Verdict
    numbers: str
    """The numbers that decided it."""
    p_value: float = math.nan
    """Two-sided p-value of what the verdict says; NaN if nothing was tested."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The runs, by one score."""

    measure: str
    text: Views | None
    tokens: Views | None
    unet: Views | None
    contributions: Views | None
    """Contributions of the resnets of the UNet."""
    token_effects: TokenMap | None

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, measure: str) -> Iterator["Evidence"]:
        """Yield the evidence in a folder of runs, whose views are open until exit."""
        with ExitStack() as stack:
            text, tokens, unet, contributions = (
                stack.enter_context(opened_finished(folder, f"replication-{name}"))
                for name in ("text", "tokens", "unet", "contributions")
            )
            yield cls(
                measure=measure,
                text=text,
                tokens=tokens,
                unet=unet,
                contributions=contributions,
                token_effects=token_map(tokens, measure) if tokens else None,
            )

    def states(self, views: Views, attribute: str, *, view: str = "ranking") -> list[Row]:
        """Return the restored components of an attribute, the strongest first."""
        return rows(
            views,
            f"FROM {view} WHERE attribute = '{attribute}' AND measure = '{self.measure}' "
            "AND intervention = 'restore' ORDER BY mean_ie DESC, component",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim of the paper and how it is judged."""

    says: str
    criterion: str
    judge: Callable[[Evidence], list[Finding]]


Judgment = tuple[Verdict, str, float]
"""Verdict, numbers and p-value of a `Finding`."""


def by_bound(interval: Interval, bound: float) -> Verdict:
    """Return the verdict of a claim that a number exceeds a bound."""
    if interval.low > bound:
        return Verdict.YES
    return Verdict.NO if interval.high < bound else Verdict.OPEN


def _each(
    views: Views | None, evidence: Evidence, judge: Callable[[Views, str], Judgment]
) -> list[Finding]:
    """Judge every attribute, unless it has too few captions or its corruption took nothing away."""
    findings: list[Finding] = []
    for attribute in ATTRIBUTES:
        reason = unfit(views, attribute, evidence.measure)
        if views is None or reason:
            verdict, numbers, p_value = Verdict.OPEN, reason, math.nan
        else:
            verdict, numbers, p_value = judge(views, attribute)
        findings.append(Finding(about=attribute, verdict=verdict, numbers=numbers, p_value=p_value))
    return findings


def unfit(views: Views | None, attribute: str, measure: str) -> str:
    """Return why an attribute cannot be judged, "" if it can."""
    if views is None:
        return "not traced"
    found = rows(
        views,
        f"SELECT max(num_captions) AS n, max(te_low) AS low FROM component_effects WHERE attribute "
        f"= '{attribute}' AND measure = '{measure}' AND intervention = 'restore'",
    )
    n, low = found[0]["n"] or 0, found[0]["low"]
    if n < MIN_CAPTIONS:
        return f"{n} captions"
    return "the corruption takes nothing away" if low is None or low <= 0 else ""


def first_is_causal(evidence: Evidence) -> list[Finding]:
    """Judge whether the paper's state is causal."""

    def judge(views: Views, attribute: str) -> Judgment:
        (row,) = [r for r in evidence.states(views, attribute) if r["component"] == FIRST]
        share = share_of_total(views, FIRST, attribute, evidence.measure)
        effect = _effect(row)
        p_value = min(1.0, 2 * row["p_causal"]) if effect.value > 0 else effect.p_value(0)
        if FIRST in _survivors(evidence, views, attribute):
            numbers = f"IE {effect}, rank {row['rank']}, {share} of the total effect"
            return Verdict.YES, numbers, p_value
        verdict = Verdict.NO if effect.high <= 0 else Verdict.OPEN
        return verdict, f"IE {effect}, {share} of the total effect", p_value

    return _each(evidence.text, evidence, judge)


def first_carries_most(evidence: Evidence) -> list[Finding]:
    """Judge whether restoring the paper's state brings most of the attribute back."""

    def judge(views: Views, attribute: str) -> Judgment:
        share = share_of_total(views, FIRST, attribute, evidence.measure)
        return by_bound(share, MOST), f"{share} of the total effect", share.p_value(MOST)

    return _each(evidence.text, evidence, judge)


def first_is_alone(evidence: Evidence) -> list[Finding]:
    """Judge whether no other component of the text encoder is causal at that token.

    That none is found would also be so where tests are weak: the others' effects have to lie below
    that of the paper's state as well.
    """

    def judge(views: Views, attribute: str) -> Judgment:
        states = {row["component"]: row for row in evidence.states(views, attribute)}
        first = _effect(states.pop(FIRST))
        found = [name for name in _survivors(evidence, views, attribute) if name != FIRST]
        # Some other one is causal: Simes's p-value of all of them.
        p_other = float(q_values(np.array([row["p_causal"] for row in states.values()])).min())
        p_no = min(1.0, 2 * p_other)
        if found:
            return Verdict.NO, f"besides it {', '.join(map(short, found))}", p_no
        if FIRST not in _survivors(evidence, views, attribute):
            return Verdict.OPEN, "no state survives", p_no
        others = [_effect(row) for row in states.values()]
        if max(other.high for other in others) >= first.low:
            return Verdict.OPEN, "others may have as large an effect", p_no
        return Verdict.YES, "alone", max(map(first.p_value_of_equal, others))

    return _each(evidence.text, evidence, judge)


def last_token_leads(evidence: Evidence) -> list[Finding]:
    """Judge whether that layer's effect is largest at the last subject token."""

    def judge(_: Views, attribute: str) -> Judgment:
        assert evidence.token_effects
        leads = {
            role: lead
            for role in ROLES
            if role != LAST
            and (lead := evidence.token_effects.lead(attribute, FIRST, role)) is not None
        }
        behind = min(leads, key=lambda role: leads[role].high)
        closest = min(leads, key=lambda role: leads[role].low)
        if leads[behind].high < 0:
            p_value = min(1.0, len(leads) * leads[behind].p_value(0))
            return Verdict.NO, f"{behind} restore more: lead {leads[behind]}", p_value
        verdict = Verdict.YES if leads[closest].low > 0 else Verdict.OPEN
        p_value = max(lead.p_value(0) for lead in leads.values())
        return verdict, f"lead over {closest}: {leads[closest]}", p_value

    return _each(evidence.tokens, evidence, judge)


def unet_is_distributed(evidence: Evidence) -> list[Finding]:
    """Judge whether a larger share of the UNet's components than of the text encoder's has an
    attribute."""

    def judge(views: Views, attribute: str) -> Judgment:
        survivors = _survivors(evidence, views, attribute)
        wide = effective_share(views, attribute, evidence.measure)
        narrow = evidence.text and effective_share(evidence.text, attribute, evidence.measure)
        if not narrow or not wide:
            return Verdict.OPEN, "the text encoder was not traced", math.nan
        numbers = f"{len(survivors)} states; share {wide}, of the text encoder {narrow}"
        p_value = wide.p_value_of_equal(narrow)
        if wide.low > narrow.high and len(survivors) > 1:
            return Verdict.YES, numbers, p_value
        return Verdict.NO if wide.high < narrow.low else Verdict.OPEN, numbers, p_value

    return _each(evidence.unet, evidence, judge)


def unet_differs(evidence: Evidence) -> list[Finding]:
    """Judge, for each pair of attributes, whether their effects differ in more than size."""
    findings: list[Finding] = []
    for first, second in combinations(ATTRIBUTES, 2):
        reasons = [unfit(evidence.unet, a, evidence.measure) for a in (first, second)]
        pair = f"{first}, {second}"
        row = None
        if evidence.unet is not None and not any(reasons):
            row = overlap(evidence.unet, first, second, evidence.measure)
        if row is None or row["p_differs"] is None:
            reason = next((reason for reason in reasons if reason), "too few captions")
            findings.append(Finding(about=pair, verdict=Verdict.OPEN, numbers=reason))
            continue
        verdict, numbers, p_value = _differ(row)
        findings.append(Finding(about=pair, verdict=verdict, numbers=numbers, p_value=p_value))
    return findings


def _differ(row: Row) -> Judgment:
    """Return the judgment of a pair's overlap; undecided if profiles differ while sets agree."""
    numbers = f"similarity {row['similarity']:.2f} of at most {row['similarity_ceiling']:.2f}"
    p_same = 1.0
    if row["jaccard_low"] is not None:
        index = Interval.of(row, "jaccard", "jaccard_low", "jaccard_high")
        numbers += f"; Jaccard {index}"
        p_same = index.p_value(SHARED) if index.value > SHARED else 1.0
    is_other, is_same = row["p_differs"] < LEVEL, p_same < LEVEL
    if is_other and not is_same:
        return Verdict.YES, numbers, row["p_differs"]
    if is_same and not is_other:
        return Verdict.NO, numbers, p_same
    return Verdict.OPEN, numbers, max(row["p_differs"], p_same)


def effective_share(views: Views, attribute: str, measure: str) -> Interval | None:
    """Return the effective number of components divided by the number of components."""
    found = rows(
        views,
        f"FROM concentration WHERE attribute = '{attribute}' AND measure = '{measure}'",
    )
    effective = concentration(views, attribute, measure)
    return effective and effective / found[0]["num_components"]


def concentration(views: Views, attribute: str, measure: str) -> Interval | None:
    """Return the effective number of components of an attribute."""
    found = rows(
        views,
        f"FROM concentration WHERE attribute = '{attribute}' AND measure = '{measure}'",
    )
    if not found or found[0]["effective_components"] is None:
        return None
    return Interval.of(found[0], "effective_components", "effective_low", "effective_high")


def overlap(views: Views, first: str, second: str, measure: str) -> Row | None:
    """Return the overlap of two attributes' causal components, in either order."""
    pair = f"('{first}', '{second}')"
    found = rows(
        views,
        f"FROM overlap WHERE measure = '{measure}' AND (attribute_a IN {pair} AND attribute_b IN "
        f"{pair})",
    )
    return found[0] if found else None


def short(component: str) -> str:
    """Return a component's name without the parts that all names share."""
    return (
        component.removeprefix("text_encoder.")
        .removeprefix("unet.")
        .replace("transformer_blocks.0.", "")
    )


def _survivors(evidence: Evidence, views: Views, attribute: str) -> list[str]:
    """Return the causal components by q-values over all attributes, parts and scores of a run."""
    states = evidence.states(views, attribute, view="causal_states")
    return [row["component"] for row in states if row["q_run"] < DISCOVERY_RATE]


def _effect(row: Row) -> Interval:
    return Interval.of(row, "mean_ie", "ie_low", "ie_high")


CLAIMS = (
    Claim(
        says="The text encoder's first self-attention at the last subject token is causal",
        criterion="it is among the view `causal_states` (false discovery rate 5 %, and beyond the "
        "control) and stays there when all attributes and scores of the run are tested together. "
        "Does not replicate if its interval lies at or below zero",
        judge=first_is_causal,
    ),
    Claim(
        says="That state carries the attribute: restoring it alone brings most of it back",
        criterion=f"its mean indirect effect exceeds {MOST:.0%} of the mean total effect",
        judge=first_carries_most,
    ),
    Claim(
        says="It is the only causal state of the text encoder at that token",
        criterion="no other component is among `causal_states`, and the intervals of all others "
        "end below its own",
        judge=first_is_alone,
    ),
    Claim(
        says="The last subject token is where it is",
        criterion="restored at the last subject token alone, that layer's effect exceeds the mean "
        "effect at positions of every other role (of the pads all together: they are alike). Does "
        "not replicate if another role exceeds it",
        judge=last_token_leads,
    ),
    Claim(
        says="In the UNet knowledge is distributed over many components",
        criterion="more than one component is among `causal_states`, and the effective share of "
        "components exceeds the text encoder's (the intervals do not meet). Does not replicate if "
        "it is below",
        judge=unet_is_distributed,
    ),
    Claim(
        says="Which components of the UNet hold an attribute differs by attribute",
        criterion="for a pair of attributes, effects over components are not the same up to their "
        "size (test of component x attribute). Does not replicate if they are not found to differ "
        f"and the Jaccard index of their sets of causal components exceeds {SHARED:g}",
        judge=unet_differs,
    ),
)
