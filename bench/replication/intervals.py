"""Numbers with their intervals, of 95 % over captions, and the p-values that follow from them."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, norm

from schemas.views import NORMAL_95

RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A number with its interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, row: Mapping[str, Any], value: str, low: str, high: str) -> "Interval":
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
