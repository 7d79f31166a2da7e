"""Damaged files of a run: every reader names the file and what repairs it."""

import json
import math
import os
import random
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.doctor.examine import examine, repair
from jobs.pool.attempts import Outcome, begin, end
from jobs.query.catalog import write_catalog
from jobs.query.damage import DamagedRun, unopened_file
from jobs.query.select import open_query, run_query
from jobs.runs.parts import (
    EMPTY_PART,
    CorruptPart,
    check_part,
    check_table,
    pack_name,
    part_name,
)
from jobs.runs.trace_run import TraceRun, open_run
from jobs.tracing.status import status_of
from schemas.errors import DqfError, StoreError
from schemas.tables import CAPTIONS
from tests.cli.test_commands import dqf
from tests.jobs.query.test_run_paths import FACTS, traced
from tests.made_up.small_run import commit_scores

TABLES = ("captions.parquet", "slabs.parquet", "units.parquet", "components.parquet")
EVERYTHING = """
SELECT count(*), max(clean), max(token), min(caption), max(chunk), max(windows)
FROM trials JOIN units USING (unit_id) JOIN slabs USING (slab) JOIN components USING (component)
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    location = tmp_path_factory.mktemp("whole") / "r"
    traced(location)
    return location


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """Return the folder of a run under `runs/` of a working directory."""
    shutil.copytree(whole, tmp_path / "runs" / "r")
    return tmp_path / "runs" / "r"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def of_zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def of_another_shape(path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), path)


@pytest.mark.parametrize("damage", [cut, emptied, of_zeros])
@pytest.mark.parametrize("name", [*TABLES, "parts/c00000001.parquet", "packs/empty.parquet"])
def test_the_file_is_named(name: str, damage: Callable[[Path], None], folder: Path) -> None:
    damage(folder / name)
    with pytest.raises(StoreError, match=rf"{name} is damaged.*doctor {folder} --repair") as caught:
        run_query(open_run(folder), EVERYTHING)
    assert len(str(caught.value)) < 1000
    with pytest.raises(StoreError, match=name), open_query({"r": open_run(folder)}, EVERYTHING):
        pass


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_another_shape_is_a_sentence(name: str, folder: Path) -> None:
    of_another_shape(folder / name)
    with pytest.raises(DqfError, match=r"doctor .* --repair"):
        run_query(open_run(folder), EVERYTHING)


def test_a_part_that_lacks_a_column_is_named_itself(folder: Path) -> None:
    run = open_run(folder)
    path = Path(run.location, part_name(1))
    metadata = pq.read_metadata(path).metadata
    lacking = pq.read_table(path).drop(["clean"]).replace_schema_metadata(metadata)
    pq.write_table(lacking, path)
    for sql in (EVERYTHING, "FROM ranking"):
        with pytest.raises(StoreError, match=rf"^{path} is damaged.*--repair"):
            run_query(run, sql)


def rewritten(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Write a file again with a change, as a user's own script would, with all that it says."""
    labels = pq.read_metadata(path).metadata
    pq.write_table(change(pq.read_table(path)).replace_schema_metadata(labels), path)


def of_half_the_digits(table: pa.Table) -> pa.Table:
    place = table.schema.get_field_index("patched")
    return table.set_column(place, "patched", table["patched"].cast(pa.float32()))


def readers_say(run: TraceRun) -> str:
    """Return the one sentence with which both readers refuse a run."""
    sentences = set[str]()
    readers: tuple[Callable[[], object], ...] = (
        partial(run_query, run, "SELECT count(*) FROM captions"),
        open_query({"r": run}, "FROM ranking").__enter__,
    )
    for read in readers:
        with pytest.raises(StoreError) as caught:
            read()
        sentences.add(str(caught.value))
    (sentence,) = sentences
    return sentence


@pytest.mark.parametrize("name", TABLES)
def test_doubled_rows_of_a_table_are_refused(name: str, folder: Path) -> None:
    run = open_run(folder)
    path = folder / name
    rows = pq.read_metadata(path).num_rows
    rewritten(path, lambda table: pa.concat_tables([table, table]))
    said = f"{path} has {2 * rows} rows, the plan {rows}: `dqf doctor {folder} --repair` puts"
    assert said in readers_say(run)
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    assert said in readers_say(run)


def test_scores_of_half_the_digits_are_refused(folder: Path) -> None:
    run = open_run(folder)
    path = folder / part_name(1)
    rewritten(path, lambda table: table)  # another writer's file of the same rows is read
    assert run_query(run, "SELECT max(patched) FROM scores").num_rows == 1
    rewritten(path, of_half_the_digits)
    assert f"{path} is damaged (column 'patched' is not as dqf writes it)" in readers_say(run)
    with pytest.raises(StoreError, match="column 'patched'"):
        run.commits()


def unfit(run: TraceRun, name: str, column: str, value: object) -> Path:
    """Put a number into the second row of a part, as another writer would."""
    path = Path(run.location, name)

    def change(table: pa.Table) -> pa.Table:
        numbers = table[column].to_pylist()
        numbers[1] = value
        place = table.schema.get_field_index(column)
        return table.set_column(
            place, table.schema.field(place), pa.array(numbers, table[column].type)
        )

    rewritten(path, change)
    return path


@pytest.mark.parametrize(("column", "value"), [("clean", math.nan), ("patched", -math.inf)])
def test_numbers_that_are_not_finite_reach_no_reader(
    column: str, value: float, folder: Path
) -> None:
    run = open_run(folder)
    path = unfit(run, part_name(1), column, value)
    said = f"{path} holds numbers that are not finite: "
    for sql in (f"SELECT avg({column}) FROM scores", f"SELECT {column} FROM trials", "FROM effects",
                "FROM ranking", "FROM concentration"):  # fmt: skip
        with pytest.raises(DamagedRun) as caught:
            run_query(run, sql)
        assert said in str(caught.value)
        assert "--repair" in str(caught.value)
    for command in (
        ("rank", "r"),
        ("rank", "r", "--as-published", "0.2"),
        ("query", "r", "FROM scores", "--out", "a.parquet", "--format", "parquet"),
        ("query", "r", f"SELECT max({column}) FROM scores"),
        ("report", "r"),
        ("export", "r", "a.duckdb"),
        ("export", "r", "tables"),
        ("plot", "r", "--figure", "ranking", "--out", "a.png"),
    ):
        done = dqf(*command, cwd=folder.parents[1])
        assert (command, done.returncode, done.stderr.count("\n")) == (command, 2, 1), done.stderr
        assert said in done.stderr
    assert sorted(os.listdir(folder.parents[1])) == ["runs"]
    write_catalog(run)  # that of the copied run reads the old place
    with (
        duckdb.connect(folder / "catalog.duckdb", read_only=True) as client,
        pytest.raises(duckdb.Error, match="holds numbers that are not finite"),
    ):
        client.execute(f"SELECT avg({column}) FROM scores").fetchall()
    assert list(repair(run, examine(run.location, lambda _: None)))
    assert not run_query(open_run(folder), "FROM effects WHERE NOT isfinite(patched)").num_rows


@pytest.mark.parametrize("column", ["part", "intervention", "patch_kind", "estimate"])
def test_words_that_a_column_cannot_hold_reach_no_reader(column: str, folder: Path) -> None:
    run = open_run(folder)
    path = unfit(run, part_name(1), column, "dance")
    said = (
        rf"{path} holds words that part, intervention, patch_kind, estimate cannot be: .* --repair"
    )
    for sql in (f"SELECT {column} FROM scores", "FROM trials", "FROM ranking"):
        with pytest.raises(DamagedRun, match=said):
            run_query(run, sql)
    assert list(repair(run, examine(run.location, lambda _: None)))
    assert not run_query(open_run(folder), f"FROM effects WHERE {column} = 'dance'").num_rows


def test_what_cannot_be_opened_now_is_not_called_damaged(folder: Path) -> None:
    """A repair would move a sound file away."""
    path = folder / "captions.parquet"
    path.unlink()
    path.symlink_to(path.name)
    with pytest.raises(StoreError, match=f"^{path} cannot be read: Too many levels") as caught:
        check_table(path, run_id="", schema=CAPTIONS, rows=0)
    assert not isinstance(caught.value, CorruptPart)
    error = duckdb.IOException('IO Error: Cannot open file "/a "b": c": Too many open files')
    assert str(unopened_file(error)) == '/a "b": c cannot be read: Too many open files'


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
@pytest.mark.parametrize("name", [part_name(1), pack_name(0)])
def test_what_is_no_file_is_not_passed_over_as_a_missing_part(
    name: str, kind: str, folder: Path
) -> None:
    path = folder / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    for read in (
        lambda run: run_query(run, "SELECT count(*) FROM scores"),
        status_of,
        lambda run: examine(run.location, lambda progress: None),
    ):
        with pytest.raises(StoreError, match=f"^cannot use {path}: it is not a regular file"):
            read(open_run(folder))


def test_a_finished_run_whose_parts_are_gone_is_said_to_be_incomplete(folder: Path) -> None:
    run = open_run(folder)
    for chunk in set(range(run.num_chunks)) - run.done_chunks():
        commit_scores(run, chunk)
    end(run, begin(run), Outcome.FINISHED)
    asked = ("query", "r", "SELECT count(*) FROM scores", "--format", "csv")
    assert status_of(run).state == "finished"
    assert "no scores" not in dqf(*asked, cwd=folder.parents[1]).stderr
    (folder / part_name(1)).unlink()
    assert status_of(run).state == "incomplete"
    assert f"{len(run.ordinals(1))} of {len(run.units)} units of r have no scores: " in (
        dqf(*asked, cwd=folder.parents[1]).stderr
    )


@pytest.mark.parametrize("name", TABLES)
def test_a_pipe_in_place_of_a_table_is_not_waited_for(name: str, folder: Path) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(StoreError, match=f"{name}: it is not a regular file"):
        run_query(open_run(folder), EVERYTHING)


@pytest.mark.parametrize(
    "command",
    [
        ("rank", "r"),
        ("query", "r", "SELECT * FROM ranking"),
        ("report", "r"),
        ("plot", "r", "--figure", "ranking", "--out", "a.png"),
    ],
)
def test_every_command_says_so(command: tuple[str, ...], folder: Path) -> None:
    cut(folder / "captions.parquet")
    done = dqf(*command, cwd=folder.parents[1])
    assert done.returncode == 2
    assert "captions.parquet is damaged" in done.stderr
    assert "--repair" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def of_another_run(run: TraceRun, other: TraceRun) -> str:
    shutil.copy(Path(other.location, part_name(1)), Path(run.location, part_name(1)))
    return part_name(1)


def of_another_chunk(run: TraceRun, _: TraceRun) -> str:
    shutil.copy(Path(run.location, part_name(0)), Path(run.location, part_name(1)))
    return part_name(1)


def of_another_generation(run: TraceRun, _: TraceRun) -> str:
    shutil.copy(Path(run.location, part_name(0)), Path(run.location, part_name(0, 1)))
    return part_name(0, 1)


def part_for_empty(run: TraceRun, _: TraceRun) -> str:
    shutil.copy(Path(run.location, part_name(0)), Path(run.location, EMPTY_PART))
    return EMPTY_PART


def part_for_pack(run: TraceRun, _: TraceRun) -> str:
    shutil.copy(Path(run.location, part_name(0)), Path(run.location, pack_name(1)))
    return pack_name(1)


def of_no_run(run: TraceRun, _: TraceRun) -> str:
    path = Path(run.location, part_name(1))
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    return part_name(1)


def table_of_another_run(run: TraceRun, other: TraceRun) -> str:
    shutil.copy(Path(other.location, "captions.parquet"), Path(run.location, "captions.parquet"))
    return "captions.parquet"


def units_of_another_run(run: TraceRun, other: TraceRun) -> str:
    shutil.copy(Path(other.location, "units.parquet"), Path(run.location, "units.parquet"))
    return "units.parquet"


Swap = Callable[[TraceRun, TraceRun], str]
"""Puts a sound file where another belongs, and returns its name."""
SWAPS: tuple[Swap, ...] = (
    of_another_run, of_another_chunk, of_another_generation, part_for_empty, part_for_pack,
    of_no_run, table_of_another_run, units_of_another_run,
)  # fmt: skip


@pytest.mark.parametrize("swap", SWAPS)
def test_a_sound_file_in_the_wrong_place_counts_for_no_reader(
    swap: Swap, folder: Path, tmp_path: Path
) -> None:
    run = open_run(folder)
    before = run_query(run, FACTS)
    name = swap(run, traced(tmp_path / "other", seeds=(5, 6)))
    sentences: list[str] = []
    readers: tuple[Callable[[], object], ...] = (
        partial(run_query, run, FACTS),
        open_query({"r": run}, FACTS).__enter__,
    )
    for read in readers:
        with pytest.raises(StoreError) as caught:
            read()
        sentences.append(str(caught.value))
    if name.startswith("p"):
        with pytest.raises(StoreError) as caught:
            run.commits()
        sentences.append(str(caught.value))
    (sentence,) = set(sentences)
    assert re.search(rf"{name} (is not part of|commits other).*`dqf doctor \S+ --repair`", sentence)
    assert list(repair(run, examine(run.location, lambda _: None)))
    for chunk in range(run.num_chunks):
        commit_scores(run, chunk)
    assert run_query(open_run(folder), FACTS).equals(before)


def test_every_command_refuses_another_runs_part(folder: Path, tmp_path: Path) -> None:
    name = of_another_run(open_run(folder), traced(tmp_path / "other", seeds=(5, 6)))
    said = set[str]()
    for command in (
        ("rank", "r"),
        ("query", "r", "SELECT * FROM captions"),
        ("report", "r"),
        ("plot", "r", "--figure", "ranking", "--out", "a.png"),
        ("export", "r", "a.duckdb"),
        ("trace", "status", "r"),
    ):
        done = dqf(*command, cwd=folder.parents[1])
        assert done.returncode == 2, (command, done.stdout, done.stderr)
        said.add(done.stderr)
    (sentence,) = said
    assert sentence.count("\n") == 1
    assert f"{name} is not part of this run: `dqf doctor " in sentence


def test_sound_parts_are_known_by_their_bytes(folder: Path) -> None:
    """The quick check decides; reading each footer whole would take five times as long."""
    run = open_run(folder)
    for name in run.live().names:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("jobs.runs.parts.read_commits", None)
            check_part(Path(run.location, name), name, run_id=run.id, schema=run.schema)


def test_what_it_says_repairs_it(folder: Path) -> None:
    before = run_query(open_run(folder), FACTS)
    cut(folder / "captions.parquet")
    of_another_shape(folder / "components.parquet")
    rewritten(folder / "slabs.parquet", lambda table: pa.concat_tables([table, table]))
    assert dqf("doctor", "r", "--repair", cwd=folder.parents[1]).returncode == 0
    assert run_query(open_run(folder), FACTS).equals(before)


def test_flipped_bits_end_in_rows_or_in_a_sentence(whole: Path, tmp_path: Path) -> None:
    generator = random.Random(3)
    for number in range(25):
        location = tmp_path / str(number)
        shutil.copytree(whole, location)
        path = location / generator.choice(TABLES)
        content = bytearray(path.read_bytes())
        start = generator.randrange(len(content))
        for place in range(start, min(start + generator.choice((1, 16)), len(content))):
            content[place] ^= 1 << generator.randrange(8)
        path.write_bytes(content)
        said = refusal_of(location)
        assert len(said) < 1000
        assert not said or path.name in said


def refusal_of(location: Path) -> str:
    """Return the sentence with which a query of a run is refused, "" if it is answered."""
    try:
        run_query(open_run(location), EVERYTHING)
    except DqfError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"plan": {}}, "field 'plan'"),
        ({"manifest": {"model_hash": 3}}, "field 'manifest'"),
        ({"components": [{"name": "a"}]}, "field 'components'"),
        ({"steps": "many"}, "field 'steps'"),
    ],
)
def test_a_damaged_plan_names_its_field(fields: dict[str, object], said: str, folder: Path) -> None:
    path = folder / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    def opened() -> TraceRun:
        run = open_run(folder)
        _ = run.plan, run.manifest, run.components, run.units
        return run

    with pytest.raises(StoreError, match=said):
        opened()
    for content in (b"[1]", b"\xff", b"", b"[" * 1000):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=r"plan\.json"):
            opened()
