"""The results of the replication's runs, as rows: read from views, or bootstrapped here.

Intervals are of 95 %, over captions. Most come from the views; computed here are a ratio of
means and means over positions of a role.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, norm

from engine.model.opening import open_model
from engine.model.tokens import find_subject
from jobs.query.opened import Views
from jobs.query.select import opened_views
from jobs.runs.trace_run import open_run
from schemas.errors import StoreError
from schemas.views import NORMAL_95

Row = dict[str, Any]
ATTRIBUTES = ("object", "style", "color", "viewpoint")
MEASURES = ("target", "caption")
"""Scores; claims are judged by the first, and also by the second."""
FIRST = "text_encoder.layers.0.self_attn"
"""The paper's causal state is this component at the last subject token."""
ROLES = (
    "before the subject",
    "earlier subject tokens",
    "last subject token",
    "words after it",
    "EOS",
    "pads",
)
"""The roles of a token. Words are restored one by one and averaged by role; pads together."""
LAST = "last subject token"
RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A number with its interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, row: Row, value: str, low: str, high: str) -> "Interval":
        """Return the interval in three columns of a row; with few captions its ends are NaN."""
        ends = [math.nan if row[name] is None else row[name] for name in (low, high)]
        return cls(value=row[value], low=ends[0], high=ends[1])

    def p_value(self, bound: float) -> float:
        """Return the two-sided p-value of the number being `bound`; NaN without an interval.

        By a normal distribution of which the end on the bound's side is the 95 % end, so that p is
        under 0.05 where the interval leaves the bound out.
        """
        return _normal_p(self.value - bound, self._error(bound))

    def p_value_of_equal(self, other: "Interval") -> float:
        """Return the two-sided p-value of two numbers of different captions being the same."""
        errors = self._error(other.value), other._error(self.value)
        return _normal_p(self.value - other.value, math.hypot(*errors))

    def _error(self, toward: float) -> float:
        """Return the standard error by the interval's end on one side."""
        return abs(self.value - (self.low if self.value > toward else self.high)) / NORMAL_95

    def __truediv__(self, count: int) -> "Interval":
        """Return the number and its interval divided by a count."""
        return Interval(value=self.value / count, low=self.low / count, high=self.high / count)

    def __str__(self) -> str:
        """Return it as it is printed."""
        size = abs(self.value)
        digits = 4 if size < 0.1 else 3 if size < 2 else 1
        # Rounded first and then raised by zero, so that no "-0.0000" is printed.
        value, low, high = (
            f"{round(x, digits) + 0.0:.{digits}f}" for x in (self.value, self.low, self.high)
        )
        return f"{value} (no interval)" if math.isnan(self.low) else f"{value} ({low} to {high})"


def _normal_p(difference: float, error: float) -> float:
    if not error:
        return float(difference == 0)
    return float(2 * norm.sf(abs(difference) / error))


@contextmanager
def opened_finished(folder: Path, name: str) -> Iterator[Views | None]:
    """Yield the views of a run that has scores; None if there is none."""
    try:
        run = open_run(folder / name)
    except StoreError:
        yield None
        return
    with opened_views(run) as views:
        yield views if rows(views, "SELECT 1 FROM scores LIMIT 1") else None


def rows(views: Views, sql: str) -> list[Row]:
    """Return the rows of a statement."""
    return views.query(sql).to_pylist()


def resampled(
    columns: Sequence[NDArray[np.float64]],
    statistic: Callable[..., NDArray[np.float64]],
    *,
    seed: str,
) -> Interval:
    """Return a statistic of paired columns with its percentile interval over captions.

    With fewer than three captions, or where all resamples agree, the interval has no width.
    """
    value = float(statistic(*columns, axis=0))
    if len(columns[0]) < 3:
        return Interval(value=value, low=math.nan, high=math.nan)
    digest = hashlib.blake2b(seed.encode(), digest_size=8).digest()
    found = bootstrap(
        tuple(columns),
        statistic,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(int.from_bytes(digest)),
    ).confidence_interval
    return Interval(value=value, low=float(found.low), high=float(found.high))


def share_of_total(
    views: Views, component: str, attribute: str, measure: str, *, intervention: str = "restore"
) -> Interval:
    """Return mean indirect effect over mean total effect of a component: the share that it brings
    back restored, or takes away corrupted."""
    found = rows(
        views,
        f"SELECT ie, te FROM caption_effects WHERE component = '{component}' AND attribute = "
        f"'{attribute}' AND measure = '{measure}' AND intervention = '{intervention}' "
        "ORDER BY caption_id",
    )
    ie, te = (np.array([row[name] for row in found]) for name in ("ie", "te"))
    return resampled(
        (ie, te),
        lambda ie, te, axis: ie.mean(axis=axis) / te.mean(axis=axis),
        seed=f"share {component} {attribute} {measure}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenMap:
    """Indirect effects of each layer of the text encoder at each role of token."""

    means: Mapping[tuple[str, str, str], NDArray[np.float64]]
    """By attribute, component and role: one value a caption, NaN where it has no such token."""
    totals: dict[str, NDArray[np.float64]]
    """By attribute: the total effect of each caption."""
    num_captions: dict[str, int]

    def effect(self, attribute: str, component: str, role: str) -> Interval | None:
        """Return the mean over captions; None if fewer than three have such a token."""
        values = self.means[attribute, component, role]
        values = values[~np.isnan(values)]
        if len(values) < 3:
            return None
        return resampled((values,), np.mean, seed=f"{attribute} {component} {role}")

    def lead(self, attribute: str, component: str, role: str) -> Interval | None:
        """Return by how much the last subject token's effect exceeds another role's, paired."""
        pair = [self.means[attribute, component, r] for r in (LAST, role)]
        both = ~np.isnan(pair[0]) & ~np.isnan(pair[1])
        if both.sum() < 3:
            return None
        return resampled(
            tuple(values[both] for values in pair),
            lambda last, other, axis: (last - other).mean(axis=axis),
            seed=f"lead {attribute} {component} {role}",
        )


def token_map(views: Views, measure: str) -> TokenMap:
    """Return the map of a run that restored each position alone."""
    tokenizer = open_model(views.run.plan.model).encoders[0].tokenizer
    spans = {caption.id: find_subject(tokenizer, caption) for caption in views.run.plan.captions}
    found = rows(
        views,
        "SELECT attribute, component, caption_id, position, avg(indirect_effect) AS ie, "
        f"avg(total_effect) AS te FROM effects WHERE measure = '{measure}' "
        "AND intervention = 'restore' GROUP BY ALL ORDER BY caption_id",
    )
    values: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    totals: dict[str, dict[str, float]] = {}
    for row in found:
        attribute, caption = row["attribute"], row["caption_id"]
        role = role_of(row["position"], spans[caption])
        by_caption = values.setdefault((attribute, row["component"], role), {})
        by_caption.setdefault(caption, []).append(row["ie"])
        totals.setdefault(attribute, {})[caption] = row["te"]
    return TokenMap(
        means={
            (attribute, component, role): np.array(
                [
                    np.mean(values.get((attribute, component, role), {}).get(caption, [np.nan]))
                    for caption in totals[attribute]
                ],
                np.float64,
            )
            for attribute in totals
            for component in dict.fromkeys(str(row["component"]) for row in found)
            for role in map(str, ROLES)
        },
        totals={a: np.array(list(by_caption.values())) for a, by_caption in totals.items()},
        num_captions={a: len(by_caption) for a, by_caption in totals.items()},
    )


def role_of(position: int, span: Any) -> str:
    """Return the role of a position of a caption."""
    if position < span.start:
        return ROLES[0]
    if position < span.last:
        return ROLES[1]
    if position == span.last:
        return LAST
    if position < span.eos:
        return ROLES[3]
    return ROLES[4] if position == span.eos else ROLES[5]
