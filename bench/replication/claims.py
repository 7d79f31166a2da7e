"""The paper's claims as criteria for numbers.

A claim is judged for one attribute (or pair of attributes) by one score. Where an interval decides,
a claim replicates if all of it lies on the claim's side of a bound, does not replicate if all of it
lies on the other, and is undecided otherwise.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

import numpy as np

from bench.replication.evidence import (
    Evidence,
    Row,
    effective_share,
    lead,
    overlap,
    share_of_total,
    unfit,
)
from bench.replication.intervals import Interval
from bench.replication.runs import POOLED, ROLES, first_at, first_attentions, text_from
from engine.statistics.composite import q_values
from jobs.query.opened import Views
from schemas.component import Part
from schemas.intervention import TokenRole
from schemas.short_names import short_name
from schemas.statistics import DISCOVERY_RATE

MOST = 0.5
"""A component carries most of an effect if its share of the total effect exceeds this."""
SHARED = 0.5
"""Two sets of components are the same, for the most part, if their Jaccard index exceeds this."""
LEVEL = 0.05
"""Level of a single judgment; over all of them `bench.replication.correction` decides."""


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
    for attribute in evidence.attributes:
        reason = unfit(views, attribute, evidence.measure)
        if views is None or reason:
            verdict, numbers, p_value = Verdict.OPEN, reason, math.nan
        else:
            verdict, numbers, p_value = judge(views, attribute)
        findings.append(Finding(about=attribute, verdict=verdict, numbers=numbers, p_value=p_value))
    return findings


def firsts(views: Views) -> list[str]:
    """Return the first self-attention of each text encoder that a run traced."""
    return first_attentions(views.run.components)


def first_is_causal(evidence: Evidence) -> list[Finding]:
    """Judge whether the paper's state is causal; of several text encoders one has to have it."""

    def judge(views: Views, attribute: str) -> Judgment:
        names, states = firsts(views), evidence.states(views, attribute, Part.TEXT_ENCODER)
        states = [row for row in states if row["component"] in names]
        row = min(states, key=lambda row: row["p_causal"])
        effect = _effect(row)
        numbers = f"`{short_name(row['component'])}`: IE {effect}, rank {row['rank']}"
        p_value = min(1.0, 2 * len(states) * row["p_causal"])
        if effect.value <= 0:
            p_value = max(_effect(row).p_value(0) for row in states)
        if set(names) & set(_survivors(evidence, views, attribute, Part.TEXT_ENCODER)):
            return Verdict.YES, numbers, p_value
        is_below = all(_effect(row).high <= 0 for row in states)
        return Verdict.NO if is_below else Verdict.OPEN, numbers, p_value

    return _each(evidence.components, evidence, judge)


def first_carries_most(evidence: Evidence) -> list[Finding]:
    """Judge whether restoring the paper's state brings most of the attribute back."""

    def judge(views: Views, attribute: str) -> Judgment:
        share = share_of_total(views, first_at(TokenRole.LAST_SUBJECT), attribute, evidence.measure)
        return by_bound(share, MOST), f"{share} of the total effect", share.p_value(MOST)

    return _each(evidence.paths, evidence, judge)


def first_is_alone(evidence: Evidence) -> list[Finding]:
    """Judge whether no other component of a text encoder is causal at that token.

    That none is found would also be so where tests are weak: the others' effects have to lie below
    that of the paper's state as well.
    """

    def judge(views: Views, attribute: str) -> Judgment:
        part, names = Part.TEXT_ENCODER, firsts(views)
        states = evidence.states(views, attribute, part)
        first = max(
            (_effect(row) for row in states if row["component"] in names),
            key=lambda effect: effect.value,
        )
        others = [row for row in states if row["component"] not in names]
        survivors = _survivors(evidence, views, attribute, part)
        found = [name for name in survivors if name not in names]
        # Some other one is causal: Simes's p-value of all of them.
        p_other = float(q_values(np.array([row["p_causal"] for row in others])).min())
        p_no = min(1.0, 2 * p_other)
        if found:
            return Verdict.NO, f"besides it {', '.join(map(short_name, found))}", p_no
        if not survivors:
            return Verdict.OPEN, "no state survives", p_no
        effects = [_effect(row) for row in others]
        if max(other.high for other in effects) >= first.low:
            return Verdict.OPEN, "others may have as large an effect", p_no
        return Verdict.YES, "alone", max(map(first.p_value_of_equal, effects))

    return _each(evidence.components, evidence, judge)


def last_token_leads(evidence: Evidence) -> list[Finding]:
    """Judge whether that layer's effect is larger at the last subject token than at the end."""

    def judge(views: Views, attribute: str) -> Judgment:
        last = first_at(TokenRole.LAST_SUBJECT)
        leads = {
            role: found
            for role in ROLES
            if role not in (TokenRole.LAST_SUBJECT, TokenRole.ALL)
            and (found := lead(views, last, first_at(role), attribute, evidence.measure))
        }
        behind = min(leads, key=lambda role: leads[role].high)
        closest = min(leads, key=lambda role: leads[role].low)
        if leads[behind].high < 0:
            p_value = min(1.0, len(leads) * leads[behind].p_value(0))
            return Verdict.NO, f"{behind} restores more: lead {leads[behind]}", p_value
        verdict = Verdict.YES if leads[closest].low > 0 else Verdict.OPEN
        p_value = max(found.p_value(0) for found in leads.values())
        return verdict, f"lead over {closest}: {leads[closest]}", p_value

    return _each(evidence.paths, evidence, judge)


def denoiser_is_distributed(evidence: Evidence) -> list[Finding]:
    """Judge whether a larger share of the denoiser's components than of the text encoder's has an
    attribute."""

    def judge(views: Views, attribute: str) -> Judgment:
        survivors = _survivors(evidence, views, attribute, Part.DENOISER)
        wide, narrow = (effective_share(views, attribute, part, evidence.measure) for part in Part)
        if not narrow or not wide:
            return Verdict.OPEN, "no effect is above zero", math.nan
        numbers = f"{len(survivors)} states; share {wide}, of the text encoder {narrow}"
        p_value = wide.p_value_of_equal(narrow)
        if wide.low > narrow.high and len(survivors) > 1:
            return Verdict.YES, numbers, p_value
        return Verdict.NO if wide.high < narrow.low else Verdict.OPEN, numbers, p_value

    return _each(evidence.components, evidence, judge)


def denoiser_differs(evidence: Evidence) -> list[Finding]:
    """Judge, for each pair of attributes, whether their effects differ in more than size."""
    findings: list[Finding] = []
    views = evidence.components
    for first, second in combinations(evidence.attributes, 2):
        reasons = [unfit(views, a, evidence.measure) for a in (first, second)]
        pair = f"{first}, {second}"
        row = None
        if views is not None and not any(reasons):
            row = overlap(views, first, second, evidence.measure)
        if row is None or row["p_differs"] is None:
            reason = next((reason for reason in reasons if reason), "too few captions")
            findings.append(Finding(about=pair, verdict=Verdict.OPEN, numbers=reason))
            continue
        verdict, numbers, p_value = _differ(row)
        findings.append(Finding(about=pair, verdict=verdict, numbers=numbers, p_value=p_value))
    return findings


def tokens_lead(evidence: Evidence) -> list[Finding]:
    """Judge whether the text rows bring more back than the pooled embedding; nothing is judged of a
    model that has none."""
    views = evidence.paths
    if views is None or POOLED not in {each.name for each in views.run.sets}:
        return []

    def judge(views: Views, attribute: str) -> Judgment:
        found = lead(views, text_from(0), POOLED, attribute, evidence.measure)
        assert found, "an attribute that is judged has captions"
        numbers = f"lead {found} of the total effect"
        return by_bound(found, 0), numbers, found.p_value(0)

    return _each(views, evidence, judge)


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


def _survivors(evidence: Evidence, views: Views, attribute: str, part: Part) -> Sequence[str]:
    """Return the causal components by q-values over all attributes, parts and scores of a run."""
    states = evidence.states(views, attribute, part, view="causal_states")
    return [row["component"] for row in states if row["q_run"] < DISCOVERY_RATE]


def _effect(row: Row) -> Interval:
    return Interval.of(row, "mean_ie", "ie_low", "ie_high")


CLAIMS = (
    Claim(
        says="The text encoder's first self-attention at the last subject token is causal",
        criterion="that of one of the text encoders is among the view `causal_states` (false "
        "discovery rate 5 %, and beyond the control) and stays there when all attributes and "
        "scores of the run are tested together. Does not replicate if its interval lies at or "
        "below zero",
        judge=first_is_causal,
    ),
    Claim(
        says="That state carries the attribute: restoring it alone brings most of it back",
        criterion=f"its mean indirect effect exceeds {MOST:.0%} of the mean total effect; those of "
        "several text encoders are restored together",
        judge=first_carries_most,
    ),
    Claim(
        says="It is the only causal state of the text encoder at that token",
        criterion="no other component of a text encoder is among `causal_states`, and the "
        "intervals of all others end below its own (the largest of those of several text encoders)",
        judge=first_is_alone,
    ),
    Claim(
        says="The last subject token is where it is",
        criterion="restored at the last subject token alone, that layer's effect exceeds that at "
        "the end-of-text token and that at all pads. Does not replicate if one of them exceeds it",
        judge=last_token_leads,
    ),
    Claim(
        says="In the denoiser knowledge is distributed over many components",
        criterion="more than one component is among `causal_states`, and the effective share of "
        "components exceeds the text encoder's (the intervals do not meet). Does not replicate if "
        "it is below",
        judge=denoiser_is_distributed,
    ),
    Claim(
        says="Which components of the denoiser hold an attribute differs by attribute",
        criterion="for a pair of attributes, effects over components are not the same up to their "
        "size (test of component x attribute). Does not replicate if they are not found to differ "
        f"and the Jaccard index of their sets of causal components exceeds {SHARED:g}",
        judge=denoiser_differs,
    ),
    Claim(
        says="The text rows carry more than the pooled embedding",
        criterion="not of the paper, and judged where a model has both: the share that the "
        "restored rows bring back exceeds that of the restored pooled embedding. Does not "
        "replicate if it is below",
        judge=tokens_lead,
    ),
)
