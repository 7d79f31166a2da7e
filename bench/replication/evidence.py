"""The results of the replication's runs, as rows: read from views, or bootstrapped here.

Intervals are of 95 %, over captions. Most come from the views; computed here are a ratio of means,
means over positions of a role, and rank correlations.
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
from scipy.stats import bootstrap, rankdata

from engine.model.opening import open_model
from engine.model.tokens import find_subject
from jobs.query.opened import Views
from jobs.query.select import opened_views
from jobs.runs.trace_run import open_run
from schemas.errors import StoreError

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

    def __str__(self) -> str:
        """Return it as it is printed."""
        size = abs(self.value)
        digits = 4 if size < 0.1 else 3 if size < 2 else 1
        # Rounded first and then raised by zero, so that no "-0.0000" is printed.
        value, low, high = (
            f"{round(x, digits) + 0.0:.{digits}f}" for x in (self.value, self.low, self.high)
        )
        return f"{value} (no interval)" if math.isnan(self.low) else f"{value} ({low} to {high})"


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


def share_of_total(views: Views, component: str, attribute: str, measure: str) -> Interval:
    """Return mean indirect effect over mean total effect of a restored component."""
    found = rows(
        views,
        f"SELECT ie, te FROM caption_effects WHERE component = '{component}' AND attribute = "
        f"'{attribute}' AND measure = '{measure}' AND intervention = 'restore' ORDER BY caption_id",
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


def profiles_agree(views: Views, first: str, second: str, measure: str) -> Interval:
    """Return Spearman's correlation of two attributes' mean effects over components.

    Captions of each are resampled on their own.
    """
    matrices = [_by_caption(views, attribute, measure) for attribute in (first, second)]
    seed = hashlib.blake2b(f"profiles {first} {second} {measure}".encode(), digest_size=8).digest()
    generator = np.random.default_rng(int.from_bytes(seed))
    value = _spearman(*(matrix.mean(axis=0) for matrix in matrices))
    draws = [
        [m[generator.integers(0, len(m), len(m))].mean(axis=0) for m in matrices]
        for _ in range(RESAMPLES)
    ]
    drawn = _spearman(*np.moveaxis(np.array(draws), 1, 0))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(value=float(value), low=float(low), high=float(high))


def _by_caption(views: Views, attribute: str, measure: str) -> NDArray[np.float64]:
    """Return restored effects, captions x components."""
    found = rows(
        views,
        f"SELECT component, list(ie ORDER BY caption_id) AS ies FROM caption_effects "
        f"WHERE attribute = '{attribute}' AND measure = '{measure}' AND intervention = 'restore' "
        "GROUP BY component ORDER BY component",
    )
    return np.array([row["ies"] for row in found]).T


def _spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Spearman's correlations along the last axis: Pearson's of the ranks."""
    ranks = (rankdata(values, axis=-1) for values in (a, b))
    a, b = (r - r.mean(axis=-1, keepdims=True) for r in ranks)
    return (a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
