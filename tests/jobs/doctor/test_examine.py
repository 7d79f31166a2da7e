"""The doctor: a healthy run is all ok, and every kind of damage is found where it is."""

import math
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import psutil
import pyarrow.parquet as pq
import pytest

from jobs.cluster.processes import DRIVER_VARIABLE
from jobs.doctor.examine import Report, examine, repair
from jobs.doctor.findings import State
from jobs.pool import attempts
from jobs.pool.attempts import Outcome
from jobs.query.catalog import CATALOG, write_catalog
from jobs.query.rules import rows_of_unit
from jobs.query.select import run_query
from jobs.runs.packs import pack
from jobs.runs.parts import Commit, Failure, PartContent, part_name, write_part
from jobs.runs.progress import Progress, failed_tasks, open_tasks
from jobs.runs.run import PLAN, IdentifiedUnit, Task
from jobs.runs.storage.local import LEFTOVER_AGE_S
from jobs.runs.trace_run import TraceRun, open_run
from schemas.errors import StoreError
from schemas.intervention import Intervention, TokenRole
from schemas.tables import SCHEMA_VERSION, SCORES
from tests.covering import covering, slow
from tests.jobs.runs.test_storage import BUCKET, amazon_url, env  # noqa: F401
from tests.made_up.small_run import commit_scores, make_run, score_rows

SCORED = "SELECT * FROM scores ORDER BY ALL"


def states(report: Report) -> dict[str, State]:
    """Return the checks that are not ok; orphans on this machine are not the run's."""
    found = {f.check: f.state for f in report.findings}
    assert len(found) == len(report.findings)
    return {c: s for c, s in found.items() if s is not State.OK and c != "processes"}


def text_of(report: Report, check: str) -> str:
    (finding,) = [finding for finding in report.findings if finding.check == check]
    return f"{finding.found} | {finding.todo}"


def checked(run: TraceRun) -> Report:
    shown: list[Progress] = []
    report = examine(run.location, shown.append)
    assert all(at.done <= at.total for at in shown)
    assert report.is_sound == (State.WRONG not in states(report).values())
    return report


def path_of(run: TraceRun, name: str) -> Path:
    return Path(run.location, name)


def failure_of(row: IdentifiedUnit) -> Failure:
    return Failure(unit_id=row.unit_id, error="E", message="m", traceback="t")


def commit_failed(run: TraceRun, task: Task, *, failed: int) -> None:
    """Commit a task whose first units failed."""
    units = run.unit_rows(task)
    rows = [row for unit in units[failed:] for row in score_rows(unit)]
    run.commit(task, rows, [failure_of(unit) for unit in units[:failed]], units=len(units))


def part_of(
    run: TraceRun, task: Task, rows: list[dict], *, failures: int = 0, units: int = 2
) -> bytes:
    """Return a part made by hand."""
    table = run_query(run, "SELECT * FROM scores LIMIT 0").from_pylist(rows, schema=SCORES)
    tried = run.unit_rows(Task(chunk=task.chunk))
    commit = Commit(
        chunk=task.chunk,
        generation=task.generation,
        units=units,
        failures=tuple(failure_of(unit) for unit in tried[:failures]),
    )
    return write_part([PartContent(table=table, commits=(commit,))], run_id=run.id, schema=SCORES)


def rows_of(run: TraceRun, chunk: int) -> list[dict]:
    return [row for unit in run.unit_rows(Task(chunk=chunk)) for row in score_rows(unit)]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of a run of three chunks of two units, all scored, which was made in `r`."""
    run = make_run(tmp_path_factory.mktemp("scored") / "r")
    for chunk in range(3):
        commit_scores(run, chunk)
    write_catalog(run)
    return shutil.copytree(run.location, Path(run.location).with_name("scored"))


@pytest.fixture
def run(scored: Path) -> TraceRun:
    """Return a run of three chunks of two units, all scored.

    Each test has it in the same folder, whose path stands in its catalog.
    """
    folder = scored.with_name("r")
    shutil.rmtree(folder, ignore_errors=True)
    return open_run(shutil.copytree(scored, folder))


def trace_left(run: TraceRun) -> None:
    for task in open_tasks(run):
        commit_scores(run, task.chunk)


def mended(run: TraceRun) -> Report:
    """Return the findings once the run is repaired and what was missing is committed again."""
    before = checked(run)
    assert list(repair(open_run(run.location), before))
    between = checked(run)
    assert between.is_sound, between.findings
    trace_left(open_run(run.location))
    return checked(run)


def test_a_healthy_run_is_all_ok_at_every_stage(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    write_catalog(run)
    assert "6 units planned, 0 scored, 0 failed, 6 left" in text_of(checked(run), "progress")
    assert not states(checked(run))
    commit_failed(run, Task(chunk=1), failed=2)
    assert not states(checked(run))
    assert "0 scored, 2 failed, 4 left" in text_of(checked(run), "progress")
    commit_failed(run, Task(chunk=1, generation=1), failed=1)
    commit_scores(run, 0)
    commit_scores(run, 2)
    assert not states(checked(run))
    assert "5 scored, 1 failed, 0 left" in text_of(checked(run), "progress")
    pack(run, 0)
    assert not states(checked(run))
    (task,) = failed_tasks(run)
    assert task == Task(chunk=1, generation=2)
    commit_failed(run, task, failed=0)
    report = checked(run)
    assert not states(report)
    assert "6 scored, 0 failed, 0 left" in text_of(report, "progress")
    assert "24 scores, each once" in text_of(report, "scores")
    assert "all 6 units compared" in text_of(report, "tables")
    assert not report.damaged


def test_no_run_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="dqf trace submit"):
        examine(str(tmp_path), print)


def flipped(content: bytes) -> bytes:
    return content[:60] + bytes([content[60] ^ 1]) + content[61:]


VERSION = f"version\x18\x01{SCHEMA_VERSION}".encode()
"""How a Parquet footer says the version of a table: a key's end, a string's type and length, it."""

DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "flipped": (flipped, "CRC"),
    "truncated": (lambda content: content[: len(content) // 2], "not a whole Parquet file"),
    "empty": (lambda content: b"", "not a whole Parquet file"),
    "footer": (
        lambda content: content.replace(b'[{"chunk"', b'[{{chunk"'),
        "not a whole Parquet file",
    ),
    "version": (lambda content: content.replace(VERSION, VERSION[:-1] + b"0"), "another version"),
}


@pytest.mark.parametrize(
    ("damage", "name"), covering(DAMAGE, ["parts/c00000001.parquet", "packs/g000000.parquet"])
)
def test_a_damaged_file_is_found_and_traced_again(run: TraceRun, name: str, damage: str) -> None:
    before = run_query(run, SCORED)
    if name.startswith("packs"):
        pack(run, 0)
    change, said = DAMAGE[damage]
    content = path_of(run, name).read_bytes()
    assert change(content) != content
    path_of(run, name).write_bytes(change(content))
    report = checked(run)
    assert states(report) == {"parts": State.WRONG}
    assert name in text_of(report, "parts")
    assert said in text_of(report, "parts")
    assert report.damaged == (name,)
    assert states(mended(run)) == {"quarantine": State.NOTE}
    assert run_query(run, SCORED).equals(before)


@pytest.mark.parametrize("step", [1607, slow(401)])
def test_no_flipped_bit_of_a_part_ends_the_doctor(run: TraceRun, step: int) -> None:
    path = path_of(run, "parts/c00000001.parquet")
    content, before = path.read_bytes(), run_query(run, SCORED)
    start = content.index(b"ARROW:schema")
    described = range(start, start + len((pq.read_metadata(path).metadata or {})[b"ARROW:schema"]))
    unseen = 0
    for place in range(0, len(content), step):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        if checked(run).is_sound:
            unseen += place not in described  # what columns mean
            assert run_query(run, SCORED).equals(before)
    assert unseen < 6  # other bits of headers and the footer that say nothing of the scores


def test_wrong_bounds_of_a_column_are_found_and_no_run_writes_any(run: TraceRun) -> None:
    """DuckDB passes over the rows that a filter and the bounds of a column exclude."""
    path = path_of(run, "parts/c00000001.parquet")
    for own in Path(run.location).rglob("*.parquet"):
        written = pq.read_metadata(own)
        for group in map(written.row_group, range(written.num_row_groups)):
            assert not any(group.column(n).statistics for n in range(group.num_columns))
    labels = pq.read_metadata(path).metadata
    bounded = pq.read_table(path).replace_schema_metadata(labels)
    pq.write_table(bounded, path, write_page_checksum=True)  # as older versions wrote it
    assert states(checked(run)) == {}
    content, last = path.read_bytes(), "SELECT * FROM scores WHERE token = 'last_subject'"
    whole = run_query(run, last)
    footer = len(content) - int.from_bytes(content[-8:-4], "little")
    path.write_bytes(content[:footer] + content[footer:].replace(b"last_subject", b"last_subaaaa"))
    lost = run_query(run, last)
    assert lost.num_rows < whole.num_rows
    report = checked(run)
    assert "values are outside the bounds of their columns" in text_of(report, "parts")
    assert report.damaged == ("parts/c00000001.parquet",)


def test_a_part_of_another_run_is_found(run: TraceRun, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", seeds=(5, 6))
    commit_scores(other, 1)
    shutil.copy(path_of(other, part_name(1)), path_of(run, part_name(1)))
    report = checked(run)
    assert states(report) == {"parts": State.WRONG}
    assert "c00000001.parquet is not part of this run" in text_of(report, "parts")
    assert states(mended(run)) == {"quarantine": State.NOTE}


def test_a_part_under_another_name_is_found(run: TraceRun) -> None:
    shutil.copy(path_of(run, part_name(0)), path_of(run, part_name(2)))
    shutil.copy(path_of(run, part_name(0)), path_of(run, part_name(3)))
    report = checked(run)
    assert states(report) == {"parts": State.WRONG}
    assert report.damaged == (part_name(2), part_name(3))
    assert "a chunk that the plan does not have" in text_of(report, "parts")


def test_an_edited_plan_is_found_and_nothing_is_moved(run: TraceRun) -> None:
    plan = path_of(run, PLAN)
    content = plan.read_text()
    plan.write_text(content.replace("a cat", "a cow").replace('"cat"', '"cow"'))
    report = checked(run)
    assert states(report)["plan"] is State.WRONG
    assert "was edited" in text_of(report, "plan")
    with pytest.raises(StoreError, match="can be repaired before"):
        list(repair(open_run(run.location), report))
    plan.write_text(content)
    assert not states(checked(run))


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", f'{{"schema_version": {SCHEMA_VERSION}, "plan": {{}}}}', "{'"]
)
def test_a_plan_that_is_none_is_found(run: TraceRun, content: str) -> None:
    path_of(run, PLAN).write_text(content)
    report = checked(run)
    assert states(report) == {"plan": State.WRONG}
    assert not report.is_repairable


def test_a_plan_of_another_version_is_found(run: TraceRun) -> None:
    plan = path_of(run, PLAN)
    plan.write_text(
        plan.read_text().replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 3')
    )
    assert "version 3" in text_of(checked(run), "plan")


TABLES = ("captions", "slabs", "units", "components", "parts/empty", "packs/empty")


@pytest.mark.parametrize(("table", "damage"), covering(TABLES, ["missing", "flipped", "other"]))
def test_a_wrong_table_is_found_and_written_again(
    run: TraceRun, tmp_path: Path, table: str, damage: str
) -> None:
    path = path_of(run, f"{table}.parquet")
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "flipped":
        # Where a page begins; an empty part has none, its footer's first byte is struck.
        path.write_bytes(content[:30] + bytes([content[30] ^ 255]) + content[31:])
    else:
        other = {"captions": "slabs", "slabs": "captions", "components": "units"}
        source = path_of(run, f"{other.get(table, 'components')}.parquet")
        shutil.copy(source, path)
    report = checked(run)
    assert states(report) == {"tables": State.WRONG}
    assert table in text_of(report, "tables")
    list(repair(open_run(run.location), report))
    assert path.read_bytes() == content
    assert checked(run).is_sound


@pytest.mark.parametrize("table", ["captions", "slabs", "units", "components"])
def test_a_table_that_disagrees_with_the_plan_is_found(
    run: TraceRun, tmp_path: Path, table: str
) -> None:
    other = make_run(tmp_path / "other", seeds=(0, 2))
    path = path_of(run, f"{table}.parquet")
    if table == "units":
        shutil.copy(path_of(other, "units.parquet"), path)
        assert "does not agree with the plan" in text_of(checked(run), "tables")
        return
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(path).slice(1), path)
    assert f"{table}.parquet has" in text_of(checked(run), "tables")


def test_of_many_units_a_sample_is_compared(run: TraceRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.doctor.tables.ALL_UNITS", 5)
    monkeypatch.setattr("jobs.doctor.tables.SAMPLE", 3)
    monkeypatch.setattr("jobs.doctor.tables.BATCH_UNITS", 4)
    assert "a sample of 3 of 6 units" in text_of(checked(run), "tables")
    assert not states(checked(run))


def test_a_missing_unit_is_found(run: TraceRun) -> None:
    path_of(run, part_name(1)).write_bytes(part_of(run, Task(chunk=1), rows_of(run, 1)[:4]))
    report = checked(run)
    assert states(report) == {"units": State.WRONG}
    assert f"{part_name(1)}: 1 units are neither scored nor failed" in text_of(report, "units")
    assert "4 scored, 0 failed, 2 left" in text_of(report, "progress")
    assert states(mended(run)) == {"quarantine": State.NOTE}


def test_a_unit_both_scored_and_failed_is_found(run: TraceRun) -> None:
    content = part_of(run, Task(chunk=1), rows_of(run, 1), failures=1)
    path_of(run, part_name(1)).write_bytes(content)
    report = checked(run)
    assert states(report) == {"units": State.WRONG}
    assert "1 units are both scored and failed" in text_of(report, "units")


def test_a_miscounted_commit_is_found(run: TraceRun) -> None:
    path_of(run, part_name(1)).write_bytes(part_of(run, Task(chunk=1), rows_of(run, 1), units=3))
    assert "commits 3 units of chunk 1, not 2" in text_of(checked(run), "units")


def test_units_of_another_chunk_are_found(run: TraceRun) -> None:
    rows = rows_of(run, 1) + rows_of(run, 2)
    path_of(run, part_name(1)).write_bytes(part_of(run, Task(chunk=1), rows))
    report = checked(run)
    assert states(report) == {"units": State.WRONG, "scores": State.WRONG}
    assert "2 units are not among those to be tried in it" in text_of(report, "units")
    assert "8 of 32 scores are there more than once" in text_of(report, "scores")
    assert report.damaged == (part_name(1),)  # chunk 2 holds its own
    assert states(mended(run)) == {"quarantine": State.NOTE}


@pytest.mark.parametrize("label", ["caption_id", "seed", "draw", "noise_sigmas", "part"])
def test_a_wrong_label_is_found(run: TraceRun, label: str) -> None:
    rows = rows_of(run, 1)
    others = {"caption_id": "x", "part": "denoiser"}
    rows = [row | {label: others.get(label, 7)} for row in rows]
    path_of(run, part_name(1)).write_bytes(part_of(run, Task(chunk=1), rows))
    report = checked(run)
    assert states(report) == {"units": State.WRONG}
    assert "another caption_id, seed, draw, noise_sigmas or part" in text_of(report, "units")


@pytest.mark.parametrize(("column", "value"), [("clean", math.nan), ("patched", -math.inf)])
def test_scores_that_are_not_finite_are_found(run: TraceRun, column: str, value: float) -> None:
    first, *others = rows_of(run, 1)
    rows = [first | {column: value}, *others]
    path_of(run, part_name(1)).write_bytes(part_of(run, Task(chunk=1), rows))
    report = checked(run)
    assert states(report) == {"scores": State.WRONG}
    assert "1 scores are not finite" in text_of(report, "scores")
    assert states(mended(run)) == {"quarantine": State.NOTE}


def test_a_missing_row_is_found(run: TraceRun) -> None:
    path_of(run, part_name(1)).write_bytes(part_of(run, Task(chunk=1), rows_of(run, 1)[:-1]))
    report = checked(run)
    assert states(report) == {"rows": State.WRONG}
    assert "1 units have not as many scores" in text_of(report, "rows")
    assert states(mended(run)) == {"quarantine": State.NOTE}


def test_scores_repeated_in_a_part_are_found(run: TraceRun) -> None:
    rows = rows_of(run, 1)
    path_of(run, part_name(1)).write_bytes(part_of(run, Task(chunk=1), [*rows, *rows[:3]]))
    report = checked(run)
    assert states(report) == {"scores": State.WRONG}
    assert "3 scores are there already" in text_of(report, "scores")
    assert states(mended(run)) == {"quarantine": State.NOTE}


@pytest.mark.parametrize("is_packed", [False, True])
def test_scores_repeated_by_a_later_generation_are_found(run: TraceRun, is_packed: bool) -> None:
    if is_packed:
        pack(run, 0)
    retry = Task(chunk=1, generation=1)
    run.storage.create(part_name(1, 1), part_of(run, retry, rows_of(run, 1)))
    report = checked(run)
    assert states(report) == {"units": State.WRONG, "scores": State.WRONG}
    assert f"{part_name(1, 1)}: 8 scores are there already" in text_of(report, "scores")
    assert report.damaged == (part_name(1, 1),)
    before = run_query(run, "SELECT DISTINCT * FROM scores ORDER BY ALL")
    assert states(mended(run)) == {"quarantine": State.NOTE}
    assert run_query(run, SCORED).equals(before)


def test_a_generation_goes_with_the_one_that_it_tries_again(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    write_catalog(run)
    commit_failed(run, Task(chunk=0), failed=1)
    commit_failed(run, Task(chunk=0, generation=1), failed=0)
    path = path_of(run, part_name(0))
    path.write_bytes(flipped(path.read_bytes()))
    report = checked(run)
    assert report.damaged == (part_name(0), part_name(0, 1))
    assert "tries generation 0 again, which is missing" in text_of(report, "parts")
    # Its unit would count twice once the chunk is traced again.
    assert states(mended(run)) == {"quarantine": State.NOTE}
    assert run_query(run, SCORED).num_rows == 24


def test_a_pack_without_one_of_its_chunks_is_found(run: TraceRun, tmp_path: Path) -> None:
    whole = run_query(run, SCORED)
    contents = [run.storage.read(part_name(chunk)) for chunk in range(3)]
    pack(run, 0)
    short = write_part(
        [PartContent(table=whole.slice(0, 0).cast(SCORES), commits=())],
        run_id=run.id,
        schema=SCORES,
    )
    path_of(run, "packs/g000000.parquet").write_bytes(short)
    assert "commits other chunks" in text_of(checked(run), "parts")
    # Parts that such a pack hides are the run's data: they count again.
    for chunk, content in enumerate(contents):
        run.storage.create(part_name(chunk), content)
    assert states(mended(run)) == {"quarantine": State.NOTE}
    assert run_query(run, SCORED).equals(whole)
    assert [run.storage.read(part_name(chunk)) for chunk in range(3)] == contents


def test_a_part_that_outlived_its_packing_is_noted_and_removed(run: TraceRun) -> None:
    content = run.storage.read(part_name(1))
    pack(run, 0)
    run.storage.create(part_name(1), content)
    report = checked(run)
    assert states(report) == {"leftovers": State.NOTE}
    assert "1 parts that a pack took the place of" in text_of(report, "leftovers")
    assert list(repair(run, report)) == [f"{part_name(1)} was removed: its pack holds it"]
    assert not states(checked(run))


def test_temporary_files_are_noted_and_removed_when_old(run: TraceRun) -> None:
    for name in ("parts/.c00000001.parquet.abcd_123", f".{CATALOG}.abcd_123"):
        path_of(run, name).touch()
        os.utime(path_of(run, name), (0, 0))
    path_of(run, "parts/.c00000002.parquet.abcd_124").touch()
    report = checked(run)
    assert states(report) == {"leftovers": State.NOTE}
    assert "3 temporary files" in text_of(report, "leftovers")
    list(repair(run, report))
    assert "1 temporary files" in text_of(checked(run), "leftovers")
    assert LEFTOVER_AGE_S > 60


def test_foreign_files_are_named(run: TraceRun) -> None:
    for number in range(12):
        path_of(run, f"note{number:02d}.txt").touch()
    report = checked(run)
    assert states(report) == {"files": State.NOTE}
    assert "12 files that dqf did not make: note00.txt, note01.txt" in text_of(report, "files")
    assert "note09.txt ..." in text_of(report, "files")


def test_a_foreign_file_that_the_catalog_counts_is_wrong(run: TraceRun) -> None:
    shutil.copy(path_of(run, part_name(1)), path_of(run, "parts/copy.parquet"))
    report = checked(run)
    assert states(report) == {"files": State.WRONG}
    with duckdb.connect(str(path_of(run, CATALOG)), read_only=True) as connection:
        assert connection.sql("SELECT count(*) FROM scores").fetchall() == [(32,)]
    assert states(mended(run)) == {"quarantine": State.NOTE}


def test_a_moved_run_gets_a_catalog_of_its_place(run: TraceRun) -> None:
    moved = open_run(Path(run.location).rename(Path(run.location).with_name("moved")))
    report = checked(moved)
    assert states(report) == {"catalog": State.NOTE}
    assert "the run was moved" in text_of(report, "catalog")
    list(repair(moved, report))
    assert not states(checked(moved))


def test_a_damaged_catalog_is_found_and_written_again(run: TraceRun) -> None:
    path_of(run, CATALOG).write_bytes(b"no database" * 1000)
    report = checked(run)
    assert states(report) == {"catalog": State.WRONG}
    list(repair(run, report))
    assert states(checked(run)) == {"quarantine": State.NOTE}
    path_of(run, CATALOG).unlink()
    assert states(checked(run))["catalog"] is State.NOTE


def test_an_attempt_of_a_dead_process_is_noted(run: TraceRun) -> None:
    driver = (
        "import sys; from jobs.pool import attempts; from jobs.runs import trace_run; "
        "attempts.begin(trace_run.open_run(sys.argv[1]))"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", driver, run.location], cwd=root, check=True)
    report = checked(run)
    assert states(report) == {"attempts": State.NOTE}
    assert "1 attempts; attempt 0 had other code of dqf and was killed" in text_of(
        report, "attempts"
    )


def test_a_run_that_is_worked_on_is_not_repaired(run: TraceRun) -> None:
    attempt = attempts.begin(run)
    report = checked(run)
    assert f"runs now as process {os.getpid()}" in text_of(report, "attempts")
    with pytest.raises(StoreError, match="stop it first"):
        list(repair(run, report))
    attempts.end(run, attempt, Outcome.FINISHED)
    assert "process" not in text_of(checked(run), "attempts")
    assert list(repair(run, report)) == []


def test_an_attempt_elsewhere_or_of_other_versions_is_noted(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    plan = path_of(run, PLAN)
    plan.write_text(plan.read_text().replace('"versions": {}', '"versions": {"torch": "0.1"}'))
    attempts.begin(open_run(run.location))
    begun = path_of(run, "attempts/0000.json")
    begun.write_text(begun.read_text().replace(socket.gethostname(), "another-host"))
    text = text_of(checked(run), "attempts")
    assert "the run was made with 0.1" in text
    assert "has not ended, on another-host" in text


def test_a_damaged_attempt_is_found(run: TraceRun) -> None:
    for content in ("", "[]", "{}", '{"number": 0}'):
        path_of(run, "attempts").mkdir(exist_ok=True)
        path_of(run, "attempts/0000.json").write_text(content)
        assert states(checked(run)) == {"attempts": State.WRONG}


def test_a_process_of_a_killed_driver_is_noted(run: TraceRun) -> None:
    driver = subprocess.Popen([sys.executable, "-c", ""])
    name = f"{driver.pid}:{psutil.Process(driver.pid).create_time()}"
    driver.wait()
    left = subprocess.Popen(
        ["ray::Left", "60"], executable="/bin/sleep", env={**os.environ, DRIVER_VARIABLE: name}
    )
    try:
        assert str(left.pid) in text_of(checked(run), "processes")
    finally:
        left.kill()
        left.wait()


@pytest.mark.parametrize(
    ("tokens", "interventions", "rows"),
    [
        ((TokenRole.EOS,), (Intervention.RESTORE,), 4),
        ((TokenRole.EOS, TokenRole.ALL), (Intervention.RESTORE, Intervention.ZERO), 16),
        ((TokenRole.EOS,), (Intervention.RESTORE, Intervention.OTHER_SEED), 4),
        ((TokenRole.EOS,), (Intervention.SWAP,), 0),
        ((TokenRole.EOS, TokenRole.WORDS), (Intervention.RESTORE,), None),
    ],
)
def test_rows_of_a_unit(
    tmp_path: Path,
    tokens: tuple[TokenRole, ...],
    interventions: tuple[Intervention, ...],
    rows: int | None,
) -> None:
    run = make_run(tmp_path / "r")
    run.__dict__["plan"] = run.plan.model_copy(
        update={"tokens": tokens, "interventions": interventions}
    )
    assert rows_of_unit(run, run.units.slabs[0], run.plan.captions[0].attribute) == rows


def test_uneven_rows_are_noted_where_captions_decide(tmp_path: Path) -> None:
    made = make_run(tmp_path / "r")
    plan = made.storage.read(PLAN).decode().replace("last_subject", "words")
    run = open_run(_rewritten(tmp_path / "words", plan))
    commit_scores(run, 0)
    assert states(checked(run)) == {"catalog": State.NOTE}
    rows = [row | {"token": "3"} for row in rows_of(run, 1)]
    run.commit(Task(chunk=1), rows_of(run, 1) + rows, [], units=2)
    report = checked(run)
    assert states(report) == {"catalog": State.NOTE, "rows": State.NOTE}
    assert "4 to 8 scores" in text_of(report, "rows")


def _rewritten(folder: Path, plan: str) -> Path:
    """Return a new run of a plan given as text."""

    folder.mkdir()
    (folder / PLAN).write_text(plan)
    open_run(folder).complete()
    return folder


def test_parts_that_are_packed_meanwhile_are_no_damage(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    commit_failed(run, Task(chunk=1), failed=1)
    commit_failed(run, Task(chunk=1, generation=1), failed=0)
    commit_scores(run, 0)
    commit_scores(run, 2)

    def pack_first(at: Progress) -> None:
        pack(run, 0)

    report = examine(run.location, pack_first)
    assert states(report) == {"catalog": State.NOTE, "parts": State.NOTE}
    assert "3 of the parts were packed while this ran" in text_of(report, "parts")


def test_a_run_in_a_bucket(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    server = request.getfixturevalue("amazon_url")
    request.getfixturevalue("env").setenv("AWS_ENDPOINT_URL", server)
    run = make_run(f"s3://{BUCKET}/doctor/{tmp_path.name}")
    for chunk in range(3):
        commit_scores(run, chunk)
    assert not states(checked(run))
    before = run_query(run, SCORED)
    content = run.storage.read(part_name(1))
    run.storage.remove(part_name(1))
    run.storage.create(part_name(1), flipped(content))
    run.storage.create("parts/note.txt", b"x")
    report = checked(run)
    assert states(report) == {"parts": State.WRONG, "files": State.NOTE}
    assert states(mended(run)) == {"quarantine": State.NOTE, "files": State.NOTE}
    assert run_query(run, SCORED).equals(before)
