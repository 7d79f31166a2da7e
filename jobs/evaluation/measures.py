"""The measures of an evaluation: one row per group of prompts, from the tables of its images.

There are two accuracies: over all images, and over those that the unedited model draws right
(`right_before`), as MACE and SPEED chose concepts that their model draws with over 99 %.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import numpy as np
import torch
from numpy.typing import NDArray

from engine.evaluation.quality import cmmd
from engine.model.seeds import derived_seed
from engine.statistics.bootstrap import Interval, harmonic_interval, harmonic_mean, ratio_interval
from jobs.query.whole_rows import checked_rows
from jobs.runs.evaluation_run import EDIT, EvaluationRun
from schemas.evaluation import COUNTED, NEIGHBOR, Group
from schemas.results import HARMONIC, STILL_RECOGNISED, GroupResult
from schemas.views import quoted

ORDER = (
    HARMONIC, STILL_RECOGNISED, Group.CONCEPT, Group.PARAPHRASE, Group.POSITION, Group.FORM,
    Group.GIVEN, Group.IMPLICIT, Group.KEPT, NEIGHBOR, Group.OBJECT, Group.STYLE, Group.COLOR,
    Group.UNRELATED, Group.GENERAL,
)  # fmt: skip
HEADLINE = (HARMONIC, STILL_RECOGNISED, Group.KEPT)
"""Rows that are printed even if there is nothing to measure."""
EMBEDDINGS = f"""
SELECT embedding_before, embedding_after FROM images
WHERE "group" = '{Group.GENERAL}' ORDER BY prompt, seed
"""
SHOWN_IMAGES = """
SELECT "group", prompt, seed, image_before, image_after FROM images
WHERE image_before IS NOT NULL ORDER BY "group", prompt, seed
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownImages:
    """The kept images of a prompt and seed, as PNG."""

    group: str
    prompt: str
    seed: int
    image_before: bytes
    image_after: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """A group's sums, one row per cluster."""

    columns: dict[str, NDArray[np.float64]]

    def pair(self, top: str, bottom: str) -> NDArray[np.float64]:
        """Return two columns side by side."""
        return np.stack([self.columns[top], self.columns[bottom]], axis=1)

    def ratio(self, top: str, bottom: str) -> float | None:
        """Return the quotient of two columns' sums; None if the second is 0."""
        whole = self.columns[bottom].sum()
        return float(self.columns[top].sum() / whole) if whole else None


def results(run: EvaluationRun, edit: str = EDIT) -> list[GroupResult]:
    """Return an edit's measures over the committed images; a group without images has only
    nulls."""
    with images_of(run, edit) as connection:
        counted = connection.sql(COUNTED).to_arrow_table()
        embeddings = connection.sql(EMBEDDINGS).to_arrow_table()
    groups = _by_group(counted.to_pylist())
    distance = None
    if embeddings.num_rows:
        sides = [torch.tensor(column.to_pylist()) for column in embeddings.columns]
        distance = cmmd(*sides)
    by_group = {name: _result(name, counts) for name, counts in groups.items()}
    if Group.GENERAL in by_group:
        by_group[Group.GENERAL] = replace(by_group[Group.GENERAL], cmmd=distance)
    if STILL_RECOGNISED in groups and Group.KEPT in groups:
        by_group[HARMONIC] = _harmonic(groups[STILL_RECOGNISED], groups[Group.KEPT])
    return [by_group.get(name) or GroupResult(group=name) for name in ORDER]


def shown_images(run: EvaluationRun, edit: str = EDIT) -> list[ShownImages]:
    """Return an edit's rows whose images were kept, in the order of group, prompt and seed."""
    with images_of(run, edit) as connection:
        rows = connection.sql(SHOWN_IMAGES).to_arrow_table().to_pylist()
    return [ShownImages(**row) for row in rows]


@contextmanager
def images_of(run: EvaluationRun, edit: str) -> Generator[duckdb.DuckDBPyConnection]:
    """Yield a connection with the view `images` of an edit's rows.

    StoreError: a file is damaged, or the rows are not those of the plan.
    """
    with checked_rows(run) as connection:
        connection.execute(f"CREATE VIEW images AS FROM part WHERE edit = {quoted(edit)}")
        yield connection


def _by_group(counted: Sequence[Mapping[str, Any]]) -> dict[str, _Counts]:
    names = [name for name in counted[0] if name not in ("group", "cluster")] if counted else []
    return {
        group: _Counts(
            columns={
                name: np.array(
                    [row[name] for row in counted if row["group"] == group], dtype=np.float64
                )
                for name in names
            }
        )
        for group in dict.fromkeys(row["group"] for row in counted)
    }


def _result(group: str, counts: _Counts) -> GroupResult:
    after_low, after_high = _ends(_interval(group, counts, "after", "choices"))
    right_low, right_high = _ends(_interval(group, counts, "both", "before"))
    replacement_low, replacement_high = _ends(
        _interval(group, counts, "as_replacement", "replacements")
    )
    total = {name: column.sum() for name, column in counts.columns.items()}
    return GroupResult(
        group=group,
        names=len(counts.columns["images"]),
        images=int(total["images"]),
        before=counts.ratio("before", "choices"),
        after=counts.ratio("after", "choices"),
        after_low=after_low,
        after_high=after_high,
        right_before=int(total["before"]) if total["choices"] else None,
        of_right=counts.ratio("both", "before"),
        of_right_low=right_low,
        of_right_high=right_high,
        as_replacement=counts.ratio("as_replacement", "replacements"),
        as_replacement_low=replacement_low,
        as_replacement_high=replacement_high,
        as_replacement_of_right=counts.ratio("both_replacement", "replacements_before"),
        clip_before=counts.ratio("clip_before", "images"),
        clip_after=counts.ratio("clip_after", "images"),
        similarity=counts.ratio("similarity", "images"),
    )


def _interval(group: str, counts: _Counts, top: str, bottom: str) -> Interval | None:
    return ratio_interval(counts.pair(top, bottom), _generator(group, top))


def _harmonic(still_recognised: _Counts, kept: _Counts) -> GroupResult:
    """Return the row of the harmonic mean, over all images and over those right before."""
    after, (after_low, after_high) = _pooled(still_recognised, kept, "after", "choices")
    of_right, (right_low, right_high) = _pooled(still_recognised, kept, "both", "before")
    return GroupResult(
        group=HARMONIC,
        after=after,
        after_low=after_low,
        after_high=after_high,
        of_right=of_right,
        of_right_low=right_low,
        of_right_high=right_high,
    )


def _pooled(
    still_recognised: _Counts, kept: _Counts, top: str, bottom: str
) -> tuple[float | None, tuple[float | None, float | None]]:
    """Return the harmonic mean of two shares and its interval; nulls if either has no images."""
    shares = still_recognised.ratio(top, bottom), kept.ratio(top, bottom)
    if shares[0] is None or shares[1] is None:
        return None, (None, None)
    interval = harmonic_interval(
        still_recognised.pair(top, bottom), kept.pair(top, bottom), _generator(HARMONIC, top)
    )
    return float(harmonic_mean(shares[0], shares[1])), _ends(interval)


def _ends(interval: Interval | None) -> tuple[float | None, float | None]:
    return interval or (None, None)


def _generator(*of: str) -> np.random.Generator:
    return np.random.default_rng(derived_seed("bootstrap", *of))
