"""Verdicts that hold together: one false discovery rate over all judgments of all models."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from bench.replication.claims import Claim, Evidence, Finding, Verdict
from engine.statistics.composite import q_values
from schemas.statistics import DISCOVERY_RATE

Key = tuple[str, str]
"""A model and a score."""
Judged = Sequence[tuple[Claim, Mapping[Key, list[Finding]]]]
"""Each claim with its findings by model and score."""


def judged(claims: Sequence[Claim], evidence: Mapping[Key, Evidence]) -> Judged:
    """Return the claims as the evidence judges them on each model by each score, all judgments
    corrected together."""
    return corrected(
        [
            (claim, {key: claim.judge(of_key) for key, of_key in evidence.items()})
            for claim in claims
        ]
    )


def corrected(found: Judged) -> Judged:
    """Return findings of which only those hold whose q-value is under the discovery rate.

    q-values are over all judgments that were tested (Benjamini and Hochberg 1995); their p-values
    are two-sided, so that the rate holds for the side too (Benjamini and Yekutieli 2005). The
    verdicts that do not hold become undecided.
    """
    findings = [finding for _, by_key in found for each in by_key.values() for finding in each]
    q_values_of = iter(q_values(np.array([finding.p_value for finding in findings])))
    return [
        (
            claim,
            {
                key: [_held(finding, float(next(q_values_of))) for finding in each]
                for key, each in by_key.items()
            },
        )
        for claim, by_key in found
    ]


def _held(finding: Finding, q_value: float) -> Finding:
    verdict = finding.verdict if q_value < DISCOVERY_RATE else Verdict.OPEN
    numbers = finding.numbers if np.isnan(q_value) else f"{finding.numbers}; q = {q_value:.2g}"
    return replace(finding, verdict=verdict, numbers=numbers)
