"""The paper's claims as criteria for numbers.

A claim is judged for one attribute (or pair of attributes) by one score. Where an interval decides,
a claim replicates if all of it lies on the claim's side of a bound, does not replicate if all of it
lies on the other, and is undecided otherwise.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from pathlib import Path

from bench.replication.evidence import (
    ATTRIBUTES,
    FIRST,
    LAST,
    ROLES,
    Interval,
    Row,
    TokenMap,
    opened_finished,
    profiles_agree,
    rows,
    share_of_total,
    token_map,
)
from jobs.query.opened import Views
from schemas.statistics import DISCOVERY_RATE

MOST = 0.5
"""A component carries most of an effect if its share of the total effect exceeds this."""
SHARED = 0.5
"""Two sets of components are the same, for the most part, if their Jaccard index exceeds this."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The runs, by one score."""

    measure: str
    text: Views | None
    tokens: Views | None
    unet: Views | None
    token_effects: TokenMap | None

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, measure: str) -> Iterator["Evidence"]:
        """Yield the evidence in a folder of runs, whose views are open until exit."""
        with ExitStack() as stack:
            text, tokens, unet = (
                stack.enter_context(opened_finished(folder, f"replication-{name}"))
                for name in ("text", "tokens", "unet")
            )
            yield cls(
                measure=measure,
                text=text,
                tokens=tokens,
                unet=unet,
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


def by_bound(interval: Interval, bound: float) -> Verdict:
    """Return the verdict of a claim that a number exceeds a bound."""
    if interval.low > bound:
        return Verdict.YES
    return Verdict.NO if interval.high < bound else Verdict.OPEN


def below_bound(interval: Interval, bound: float) -> Verdict:
    """Return the verdict of a claim that a number is below a bound."""
    turned = Interval(value=-interval.value, low=-interval.high, high=-interval.low)
    return by_bound(turned, -bound)


def _each(
    views: Views | None, evidence: Evidence, judge: Callable[[Views, str], tuple[Verdict, str]]
) -> list[Finding]:
    """Judge every attribute, unless it has too few captions or its corruption took nothing away."""
    findings: list[Finding] = []
    for attribute in ATTRIBUTES:
        reason = unfit(views, attribute, evidence.measure)
        if views is None or reason:
            verdict, numbers = Verdict.OPEN, reason
        else:
            verdict, numbers = judge(views, attribute)
        findings.append(Finding(about=attribute, verdict=verdict, numbers=numbers))
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

    def judge(views: Views, attribute: str) -> tuple[Verdict, str]:
        (row,) = [r for r in evidence.states(views, attribute) if r["component"] == FIRST]
        survives = FIRST in _survivors(evidence, views, attribute)
        effect = _effect(row)
        if survives:
            return Verdict.YES, f"IE {effect}, rank {row['rank']}"
        verdict = Verdict.NO if effect.high <= 0 else Verdict.OPEN
        return verdict, f"IE {effect}, q = {row['q_causal']:.2g}"

    return _each(evidence.text, evidence, judge)


def first_carries_most(evidence: Evidence) -> list[Finding]:
    """Judge whether restoring the paper's state brings most of the attribute back."""

    def judge(views: Views, attribute: str) -> tuple[Verdict, str]:
        share = share_of_total(views, FIRST, attribute, evidence.measure)
        return by_bound(share, MOST), f"{share} of the total effect"

    return _each(evidence.text, evidence, judge)


def first_is_alone(evidence: Evidence) -> list[Finding]:
    """Judge whether no other component of the text encoder is causal at that token."""

    def judge(views: Views, attribute: str) -> tuple[Verdict, str]:
        survivors = _survivors(evidence, views, attribute)
        others = [name for name in survivors if name != FIRST]
        if others:
            return Verdict.NO, f"besides it {', '.join(map(short, others))}"
        return (Verdict.YES, "alone") if survivors else (Verdict.OPEN, "no state survives")

    return _each(evidence.text, evidence, judge)


def last_token_leads(evidence: Evidence) -> list[Finding]:
    """Judge whether that layer's effect is largest at the last subject token."""

    def judge(_: Views, attribute: str) -> tuple[Verdict, str]:
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
            return Verdict.NO, f"{behind} restore more: lead {leads[behind]}"
        verdict = Verdict.YES if leads[closest].low > 0 else Verdict.OPEN
        return verdict, f"lead over {closest}: {leads[closest]}"

    return _each(evidence.tokens, evidence, judge)


def unet_is_distributed(evidence: Evidence) -> list[Finding]:
    """Judge whether more components share an attribute in the UNet than in the text encoder."""

    def judge(views: Views, attribute: str) -> tuple[Verdict, str]:
        survivors = _survivors(evidence, views, attribute)
        wide = concentration(views, attribute, evidence.measure)
        narrow = evidence.text and concentration(evidence.text, attribute, evidence.measure)
        if not narrow or not wide:
            return Verdict.OPEN, "the text encoder was not traced"
        numbers = f"{len(survivors)} states; effective {wide}, in the text encoder {narrow}"
        if wide.low > narrow.high and len(survivors) > 1:
            return Verdict.YES, numbers
        return Verdict.NO if wide.high < narrow.low else Verdict.OPEN, numbers

    return _each(evidence.unet, evidence, judge)


def unet_differs(evidence: Evidence) -> list[Finding]:
    """Judge, for each pair of attributes, whether their causal components differ."""
    findings: list[Finding] = []
    for first, second in combinations(ATTRIBUTES, 2):
        reasons = [unfit(evidence.unet, a, evidence.measure) for a in (first, second)]
        pair = f"{first}, {second}"
        if any(reasons) or evidence.unet is None:
            reason = next(reason for reason in reasons if reason)
            findings.append(Finding(about=pair, verdict=Verdict.OPEN, numbers=reason))
            continue
        row = overlap(evidence.unet, first, second, evidence.measure)
        if row is None or row["jaccard"] is None or not min(row["num_a"], row["num_b"]):
            none = Finding(about=pair, verdict=Verdict.OPEN, numbers="a set is empty")
            findings.append(none)
            continue
        index = Interval.of(row, "jaccard", "jaccard_low", "jaccard_high")
        agree = profiles_agree(evidence.unet, first, second, evidence.measure)
        numbers = f"Jaccard {index}; Spearman {agree}"
        findings.append(Finding(about=pair, verdict=below_bound(index, SHARED), numbers=numbers))
    return findings


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
        criterion="no other component is among `causal_states`",
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
        criterion="more than one component is among `causal_states`, and the effective number of "
        "components exceeds the text encoder's (the intervals do not meet). Does not replicate if "
        "it is below",
        judge=unet_is_distributed,
    ),
    Claim(
        says="Which components of the UNet hold an attribute differs by attribute",
        criterion="for a pair of attributes, the Jaccard index of their sets of causal components "
        f"is below {SHARED:g}",
        judge=unet_differs,
    ),
)
