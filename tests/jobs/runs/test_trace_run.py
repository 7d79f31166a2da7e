"""The store: every chunk exactly once, whoever writes it and however often."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.query.select import run_query
from jobs.runs.packs import pack, tidy
from jobs.runs.parts import GROUP_CHUNKS, CorruptPart, Failure
from jobs.runs.progress import failed_tasks, open_tasks, progress_of
from jobs.runs.run import Task
from jobs.runs.trace_run import create_run, open_run
from jobs.tracing.status import status_of
from schemas.errors import StoreError
from schemas.tables import SCHEMA_VERSION
from tests.made_up.small_run import all_units, commit_scores, make_run, score_rows


def test_units_partition_into_chunks_and_agree_with_the_table(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", chunk_units=4)
    units = all_units(run)
    assert [row.unit for row in units] == list(run.units)
    assert [len(run.unit_rows(Task(chunk=chunk))) for chunk in range(run.num_chunks)] == [4, 2]
    table = run_query(run, "SELECT * FROM units JOIN slabs USING (slab) ORDER BY ordinal")
    for row, (ordinal, found) in zip(units, enumerate(table.to_pylist()), strict=True):
        assert row.unit_id == found["unit_id"] == run.unit_ids[ordinal]
        assert (found["ordinal"], found["chunk"]) == (ordinal, ordinal // 4)
        assert found["caption_id"] == row.unit.caption.id
        assert (found["seed"], found["draw"]) == (row.unit.seed, row.unit.draw)
        assert tuple(found["components"]) == row.unit.components
    assert len({row.unit_id for row in units}) == 6


@settings(max_examples=20, deadline=None)
@given(writes=st.lists(st.integers(0, 2), max_size=8))
def test_first_writer_wins_in_any_order(writes: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder) / "r")
        for n, chunk in enumerate(writes):
            assert commit_scores(run, chunk) == (chunk not in writes[:n])
        assert run.done_chunks() == set(writes)
        assert run_query(run, "SELECT * FROM scores").num_rows == 8 * len(set(writes))


def test_failures_are_committed_with_their_chunk(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    failure = Failure(unit_id="u", error="ValueError", message="it's bad", traceback="...")
    run.commit(Task(chunk=0), [], [failure], units=2)
    assert open_run(run.location).failures() == [failure]
    assert run.done_chunks() == {0}
    assert failed_tasks(run) == [Task(chunk=0, generation=1)]
    progress = progress_of(run)
    assert (progress.done, progress.failed, progress.total) == (2, 1, 6)


SCORES = "SELECT * FROM scores ORDER BY ALL"


def test_packing_changes_no_score_and_no_failure(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", chunk_units=1)
    for chunk in range(5):
        commit_scores(run, chunk)
    (row,) = run.unit_rows(Task(chunk=5))
    failure = Failure(unit_id=row.unit_id, error="E", message="m", traceback="t")
    run.commit(Task(chunk=5), [], [failure], units=1)
    before = run_query(run, SCORES)
    parts = {file.name: run.storage.read(file.name) for file in run.storage.files("parts")}
    pack(run, 0)
    assert [file.name for file in run.storage.files("parts")] == ["parts/empty.parquet"]
    assert run_query(run, SCORES).equals(before)
    assert run.failures() == [failure]
    assert not open_tasks(run)
    # A zombie writes its part once more: it does not count, and goes at the next start.
    run.storage.create("parts/c00000000.parquet", parts["parts/c00000000.parquet"])
    assert run_query(run, SCORES).equals(before)
    assert tidy(run) == []
    assert not run.storage.exists("parts/c00000000.parquet")
    (again,) = failed_tasks(run)
    assert [found.unit_id for found in run.unit_rows(again)] == [row.unit_id]
    run.commit(again, score_rows(row), [], units=1)
    assert not run.failures()
    assert run_query(run, SCORES).num_rows == 6 * 4
    assert GROUP_CHUNKS > 6


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign", "nothing"])
def test_a_damaged_part_is_moved_away_and_traced_again(tmp_path: Path, damage: str) -> None:
    run, other = make_run(tmp_path / "r"), make_run(tmp_path / "other", seeds=(5, 6))
    for chunk in range(3):
        commit_scores(run, chunk)
    commit_scores(other, 1)
    before = run_query(run, SCORES)
    path = Path(run.location, "parts", "c00000001.parquet")
    content = path.read_bytes()
    changed = {
        "truncated": content[: len(content) // 2],
        "flipped": content[:60] + bytes([content[60] ^ 255]) + content[61:],
        "empty": b"",
        "foreign": other.storage.read("parts/c00000001.parquet"),
        "nothing": content,
    }[damage]
    path.write_bytes(changed)
    if damage == "nothing":
        assert tidy(run) == []
        return
    with pytest.raises(CorruptPart):
        pack(run, 0)
    path.write_bytes(changed)
    assert tidy(run) == ["parts/c00000001.parquet"]
    assert open_tasks(run) == [Task(chunk=1)]
    assert len(run.storage.files("quarantine")) == 2
    commit_scores(run, 1)
    pack(run, 0)
    assert run_query(run, SCORES).equals(before)


def test_packing_a_group_that_is_not_full_changes_no_rate(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    for chunk in range(3):
        commit_scores(run, chunk)
    assert status_of(run).units_per_minute == pytest.approx(6 / 10)
    pack(run, 0)
    assert status_of(run).units_per_minute == pytest.approx(6 / 10)


def test_a_unit_id_is_a_function_of_what_determines_its_scores(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    again = make_run(tmp_path / "again")
    assert [row.unit_id for row in all_units(run)] == [row.unit_id for row in all_units(again)]
    plan = run.plan
    changes = {
        "numerics": plan.numerics.model_copy(update={"steps": 7}),
        "measures": ("target",),
        "references": ("a bird",),
    }
    ids = [row.unit_id for row in all_units(run)]
    for name, value in changes.items():
        units = run.units.__class__(plan.model_copy(update={name: value}), run.units.slabs)
        changed = units.ids(model_hash="m", scorer_hash="s")
        assert not {changed[ordinal] for ordinal in range(6)} & set(ids)
    for hashes in (
        {"model_hash": "n", "scorer_hash": "s"},
        {"model_hash": "m", "scorer_hash": "t"},
    ):
        assert run.units.ids(**hashes)[0] not in ids


def test_unwritable_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = make_run(tmp_path / "r")
    with pytest.raises(StoreError, match="cannot use"):
        create_run(tmp_path / "file" / "r", run.plan, run.manifest, [], steps=1)


def test_a_link_that_leads_nowhere_is_no_place_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "r").symlink_to("nowhere")
    with pytest.raises(StoreError, match=r"cannot use .*/r: No such file or directory"):
        make_run(tmp_path / "r")
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_a_run_of_another_version_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    plan = Path(run.location, "plan.json")
    plan.write_text(
        plan.read_text().replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 3')
    )
    with pytest.raises(
        StoreError,
        match=f"tables of version 3, this dqf reads {SCHEMA_VERSION}: read it with the dqf",
    ):
        open_run(run.location)


def test_no_run_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="dqf trace submit"):
        open_run(tmp_path)


def test_a_run_whose_plan_was_edited_is_left_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    commit_scores(run, 0)
    plan = Path(run.location, "plan.json")
    plan.write_text(plan.read_text() + "\n")
    with pytest.raises(StoreError, match="not the one that the run was made with"):
        open_run(run.location).complete()
    assert run.done_chunks() == {0}
