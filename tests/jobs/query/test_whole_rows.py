"""Rows of an evaluation or attack that its plan does not say are refused, and the doctor's too."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs.doctor.examine import examine, repair
from jobs.query.whole_rows import checked_rows
from jobs.runs.parts import PartContent, part_name, read_part, write_part
from jobs.runs.run import Run
from schemas.errors import StoreError
from tests.made_up.attacked import make_attack
from tests.made_up.evaluation_rows import Drawn, make_evaluation

DRAWN = (
    Drawn(name="cat", images=4, before=4, after=1),
    Drawn(name="dog", images=4, before=4, after=4, nearest="cat"),
)
Rows = list[dict[str, Any]]
Change = Callable[[Rows], Sequence[dict[str, Any]]]


def change_rows(run: Run[Any], change: Change) -> None:
    """Replace the rows of a run's first part by a change of them, in a sound file."""
    path = Path(run.location, part_name(0))
    part = read_part(path.read_bytes(), path.name, run_id=run.id, schema=run.schema)
    rows = [*change(part.table.to_pylist())]
    table = pa.Table.from_pylist(rows, schema=run.schema)
    changed = PartContent(table=table, commits=part.commits)
    path.write_bytes(write_part([changed], run_id=run.id, schema=run.schema))


def with_value(name: str, value: object) -> Change:
    return lambda rows: [{**rows[0], name: value}, *rows[1:]]


def check_refused(run: Run[Any], change: Change, said: str) -> None:
    """Check that a change is refused, and that the doctor finds it and takes the part away."""
    run.complete()
    with checked_rows(run) as connection:
        assert connection.sql("FROM part").to_arrow_table().num_rows
    change_rows(run, change)
    with pytest.raises(StoreError, match=f"{said}.*: `dqf doctor .* --repair`"), checked_rows(run):
        raise AssertionError("the rows were read")
    report = examine(run.location, lambda _: None)
    assert not report.is_sound
    assert [*repair(run, report)]
    with checked_rows(run):
        assert not Path(run.location, part_name(0)).exists()


BOTH: tuple[tuple[Change, str], ...] = (
    (lambda _: [], "lack the rows of 1 units"),
    (lambda rows: [*rows, *rows], "1 units with more or fewer rows"),
    (lambda rows: rows[1:], "1 units with more or fewer rows"),
    (lambda rows: [*rows, {**rows[0], "unit_id": "x"}], "rows of 1 units that its plan"),
)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        *BOTH,
        (with_value("concept", "bus"), "rows of 1 units that its plan"),
        (with_value("side", "left"), "1 rows that no worker writes"),
        (with_value("attack", "random"), "1 rows that no worker writes"),
        (with_value("success", float("nan")), "1 rows that no worker writes"),
        (with_value("success", 0.4), "1 rows that no worker writes"),
        (with_value("shown", 5), "1 rows that no worker writes"),
        (with_value("images", 8), "1 rows that no worker writes"),
        (with_value("low", 1.5), "1 rows that no worker writes"),
        (with_value("objective_after", float("inf")), "1 rows that no worker writes"),
    ],
)
def test_rows_of_no_attack(change: Change, said: str, tmp_path: Path) -> None:
    check_refused(make_attack(tmp_path / "a"), change, said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        *BOTH,
        (with_value("subject", "bus"), "rows of 1 units that its plan"),
        (with_value("replacement", "bus"), "rows of 1 units that its plan"),
        (with_value("edit", "other"), "1 rows that no worker writes"),
        (with_value("group", "dance"), "1 rows that no worker writes"),
        (with_value("prompt", "a bus"), "1 rows that no worker writes"),
        (with_value("group", "general"), "2 rows that no worker writes"),
        (with_value("clip_after", -3.0), "1 rows that no worker writes"),
        (with_value("similarity", float("nan")), "1 rows that no worker writes"),
        (with_value("image_after", b"png"), "1 rows that no worker writes"),
    ],
)
def test_rows_of_no_evaluation(change: Change, said: str, tmp_path: Path) -> None:
    check_refused(make_evaluation(tmp_path / "e", DRAWN), change, said)
