"""The store: every chunk exactly once, whoever writes it and however often."""

import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.store import EMPTY_PART, Failure, create_run, open_run, unit_of
from schemas.component import Part
from schemas.errors import StoreError
from schemas.plan import plan_units
from schemas.tables import VERSION_KEY
from tests.jobs.small_run import NAMES, make_run, score_rows


def test_units_round_trip_and_partition_into_chunks(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", chunk_units=4)
    rows = run.unit_rows()
    assert len({row["unit_id"] for row in rows}) == len(rows) == 6
    assert [row["chunk"] for row in rows] == [0, 0, 0, 0, 1, 1]
    assert run.unit_rows(1) == rows[4:]
    plan = run.plan()
    assert [unit_of(row, plan) for row in rows] == list(
        plan_units(plan, names={Part.TEXT_ENCODER: NAMES}, steps=50)
    )


@settings(max_examples=20, deadline=None)
@given(writes=st.lists(st.integers(0, 2), max_size=8))
def test_first_writer_wins_in_any_order(writes: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder) / "r")
        for n, chunk in enumerate(writes):
            scores = [row for unit in run.unit_rows(chunk) for row in score_rows(unit)]
            assert run.commit(chunk, scores, []) == (chunk not in writes[:n])
        assert run.done_chunks() == set(writes)
        table = pq.read_table(run.path / "parts")
        assert table.num_rows == 8 * len(set(writes))


def test_failures_are_committed_with_their_chunk(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    failure = Failure(unit_id="u", error="ValueError", message="it's bad", traceback="...")
    run.commit(0, [], [failure])
    assert open_run(run.path).failures() == [failure]
    assert run.done_chunks() == {0}


def test_commit_leaves_no_temporary_file_and_old_ones_go(tmp_path: Path) -> None:
    import os

    run = make_run(tmp_path / "r")
    run.commit(0, [], [])
    old, young = (run.path / "parts" / f".c00000001.parquet.{name}" for name in ("old", "young"))
    old.touch()
    young.touch()
    os.utime(old, (time.time() - 7200,) * 2)
    run.remove_leftovers()
    hidden = [file for file in (run.path / "parts").iterdir() if file.name.startswith(".")]
    assert hidden == [young]


def test_unwritable_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = make_run(tmp_path / "r")
    with pytest.raises(StoreError, match="cannot write"):
        create_run(tmp_path / "file" / "r", run.plan(), run.manifest(), [], [])


def test_a_run_of_another_version_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    empty = run.path / "parts" / EMPTY_PART
    old = pq.read_table(empty).replace_schema_metadata({VERSION_KEY: "1"})
    pq.write_table(old, empty)
    with pytest.raises(StoreError, match="tables of version 1, this dqf reads 2"):
        open_run(run.path)


def test_no_run_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="dqf trace submit"):
        open_run(tmp_path)
