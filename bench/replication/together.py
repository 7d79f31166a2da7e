"""How many components carry an attribute together, and from which depth on the text still does."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.replication.evidence import Evidence, Row, rows, share_of_total, unfit
from bench.replication.intervals import Interval
from bench.replication.runs import text_from
from jobs.query.opened import Views
from schemas.component import Part
from schemas.component_set import Curve

ENOUGH = 0.9
"""Components carry an attribute together if their share of the total effect reaches this."""
HALF = 0.5
"""A depth still matters if the text from there on brings this share back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The least size of a set that is enough; None where the largest is not."""

    size: int | None
    least: int | None
    """The least size whose interval reaches the share."""
    most: int | None
    """The least size whose whole interval does."""
    largest: int
    """The largest size that was traced."""

    def __str__(self) -> str:
        """Return it as it is printed."""
        size, least, most = (
            f"> {self.largest}" if number is None else str(number)
            for number in (self.size, self.least, self.most)
        )
        return size if size == least == most else f"{size} ({least} to {most})"


def curve(
    views: Views | None,
    attribute: str,
    part: Part,
    measure: str,
    *,
    kind: Curve = Curve.TOP,
    intervention: str = "restore",
) -> list[Row]:
    """Return a set curve's sizes and shares of the total effect, the smallest first; empty where
    nothing was traced."""
    if views is None:
        return []
    return rows(
        views,
        f"SELECT size, num_captions, mean_recovery, recovery_low, recovery_high FROM set_curves "
        f"WHERE attribute = '{attribute}' AND part = '{part}' AND measure = '{measure}' AND "
        f"curve = '{kind}' AND intervention = '{intervention}' ORDER BY size",
    )


def enough(sizes: Sequence[Row], share: float = ENOUGH) -> Size | None:
    """Return the least size of a curve whose sets reach a share of the total effect; None where no
    share is known.

    Its range is that of the sizes at which the interval's ends reach the share.
    """
    known = [row for row in sizes if row["mean_recovery"] is not None]
    if not known:
        return None

    def first(column: str) -> int | None:
        reaching = [row["size"] for row in known if (row[column] or 0.0) >= share]
        return min(reaching, default=None)

    return Size(
        size=first("mean_recovery"),
        least=first("recovery_high"),
        most=first("recovery_low"),
        largest=known[-1]["size"],
    )


def depths(views: Views) -> int:
    """Return the number of depths at which a run patched the text."""
    names = {each.name for each in views.run.sets}
    return next(depth for depth in range(len(names) + 1) if text_from(depth) not in names)


def from_depth(evidence: Evidence, attribute: str, intervention: str) -> list[Interval]:
    """Return the share of the total effect that the text brings back, or takes away, from each
    depth on; empty where nothing can be said."""
    views = evidence.paths
    if views is None or unfit(views, attribute, evidence.measure):
        return []
    return [
        share_of_total(
            views, text_from(depth), attribute, evidence.measure, intervention=intervention
        )
        for depth in range(depths(views))
    ]


def last_depth(shares: Sequence[Interval], share: float = HALF) -> tuple[int, int, int]:
    """Return the number of depths, counted from the first, from which on the text brings a share
    back; and its range, by the intervals' ends.

    Depths count as long as every one before them does.
    """
    counts: list[int] = []
    for column in ("value", "low", "high"):
        short = [n for n, found in enumerate(shares) if not getattr(found, column) >= share]
        counts.append(min(short, default=len(shares)))
    return counts[0], counts[1], counts[2]
