"""The conditions on a run's captions: a least score of the clean run, and a least total effect."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.errors import PlanError
from schemas.numbers import decimal
from schemas.views import quoted

KNOWN = re.compile(r"(?P<measure>[\w-]+):(?P<score>[-+\w.]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionFilter:
    """Conditions on a caption's mean over its seeds and draws, noise by noise; None for no
    condition."""

    known: tuple[str, float] | None = None
    """A measure, and the least score of the clean run by it."""
    min_te: float | None = None
    """Least total effect, by the measure that a score is of."""

    @classmethod
    def parsed(
        cls, known: str | None, min_te: float | None, *, measures: Sequence[str]
    ) -> "CaptionFilter":
        """Return the filter of the values `known` (MEASURE:SCORE) and `min_te`.

        PlanError: they are not a traced measure and finite numbers.
        """
        if min_te is not None and not math.isfinite(min_te):
            raise PlanError(f"the least total effect is a number such as 0.05, not {min_te}")
        if known is None:
            return cls(min_te=min_te)
        found = KNOWN.fullmatch(known)
        score = _number(found["score"]) if found else math.nan
        if found is None or not math.isfinite(score):
            raise PlanError(f"known captions are given as MEASURE:SCORE, target:0.2, not {known!r}")
        if found["measure"] not in measures:
            raise PlanError(
                f"captions cannot be known by {found['measure']!r}, which was not traced: there "
                f"are {', '.join(measures)}"
            )
        return cls(known=(found["measure"], score), min_te=min_te)

    def filtered(self, scores: str) -> str:
        """Return a SELECT of the scores whose captions pass the filter."""
        conditions: list[str] = []
        if self.known:
            measure, score = self.known
            conditions.append(
                f"caption_id IN (SELECT caption_id FROM ({scores}) WHERE measure = "
                f"{quoted(measure)} GROUP BY caption_id HAVING avg(clean) >= {score!r})"
            )
        if self.min_te is not None:
            conditions.append(
                "(caption_id, noise_sigmas, measure) IN ("
                f"SELECT (caption_id, noise_sigmas, measure) FROM ({scores}) "
                f"GROUP BY caption_id, noise_sigmas, measure "
                f"HAVING avg(clean - corrupted) >= {self.min_te!r})"
            )
        return (
            f"SELECT * FROM ({scores}) WHERE {' AND '.join(conditions)}" if conditions else scores
        )

    def __bool__(self) -> bool:
        """Return whether there is a condition."""
        return self.known is not None or self.min_te is not None

    def __str__(self) -> str:
        """Return the conditions in words."""
        known = [f"a clean run of {self.known[0]} >= {self.known[1]:g}"] if self.known else []
        effect = [] if self.min_te is None else [f"a total effect >= {self.min_te:g}"]
        return " and ".join(known + effect)


EVERY_CAPTION = CaptionFilter()


def _number(text: str) -> float:
    try:
        return decimal(text)
    except ValueError:
        return math.nan
