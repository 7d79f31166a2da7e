"""The SQL views agree with plain Python, and the gate lets nothing but one SELECT through."""

import math
from contextlib import chdir
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import duckdb
import pytest

import jobs.query.opened
import jobs.query.select
from jobs.doctor.examine import examine, repair
from jobs.query.catalog import CATALOG, CatalogState, catalog_state, write_catalog
from jobs.query.select import run_query
from jobs.runs.packs import pack
from jobs.runs.parts import Failure
from jobs.runs.run import Task
from jobs.runs.trace_run import TraceRun, open_run
from schemas.views import STATISTICS_VIEWS
from tests.made_up.small_run import all_units, commit_scores, make_run, score_rows


@pytest.fixture
def run(tmp_path: Path) -> TraceRun:
    run = make_run(tmp_path / "a run's folder")
    for chunk in range(run.num_chunks):
        commit_scores(run, chunk)
    return run


def test_component_effects_match_plain_python(run: TraceRun) -> None:
    units = all_units(run)
    attribute = {row.unit.caption.id: row.unit.caption.attribute for row in units}
    rows = [row for unit in units for row in score_rows(unit)]
    found = run_query(run, "SELECT * FROM component_effects").to_pylist()
    assert len(found) == 2 * 2 * 2
    for effect in found:
        by_caption: dict[str, list[float]] = {}
        for row in rows:
            same = all(row[key] == effect[key] for key in ("component", "measure"))
            if same and attribute[row["caption_id"]] == effect["attribute"]:
                ie = row["patched"] - row["corrupted"]
                by_caption.setdefault(row["caption_id"], []).append(ie)
        means = [mean(values) for values in by_caption.values()]
        assert effect["mean_ie"] == pytest.approx(mean(means))
        assert effect["num_captions"] == len(means)
        if len(means) > 1:
            assert effect["se_ie"] == pytest.approx(stdev(means) / math.sqrt(len(means)))
        else:
            assert effect["se_ie"] is None


def test_effects_are_signed_by_direction_and_compared_with_controls(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", seeds=(1,))
    value = {"restore": 0.25, "other-seed": 0.15, "corrupt": 0.12, "zero": 0.4}
    for chunk in range(run.num_chunks):
        units = run.unit_rows(Task(chunk=chunk))
        rows = [
            {**row, "intervention": intervention, "patched": restored + 0.01 * chunk}
            for unit in units
            for row in score_rows(unit)
            for intervention, restored in value.items()
        ]
        run.commit(Task(chunk=chunk), rows, [], units=len(units))
    effects = run_query(run, "SELECT * FROM component_effects").to_pylist()
    for effect in (effect for effect in effects if effect["attribute"] == "object"):
        expected = {"restore": 0.15, "other-seed": 0.05, "corrupt": 0.18, "zero": -0.1}
        assert effect["mean_ie"] == pytest.approx(expected[effect["intervention"]])
    controlled = run_query(run, "SELECT * FROM controlled_effects").to_pylist()
    assert len(controlled) == 2 * 2 * 2
    for effect in controlled:
        assert effect["control"] == "other-seed"
        assert effect["mean_difference"] == pytest.approx(0.1)
        assert effect["se_difference"] in (None, pytest.approx(0.0, abs=1e-12))
    # Two captions show no more than that their signs agree (tests/jobs/query/test_estimates.py).
    assert run_query(run, "FROM causal_states").num_rows == 0


def test_recovery_is_null_where_the_total_effect_is_noise(run: TraceRun) -> None:
    rows = run_query(run, "SELECT seed, recovery, total_effect FROM effects").to_pylist()
    assert {row["seed"] for row in rows if row["recovery"] is None} == {0}
    assert all(row["recovery"] is not None for row in rows if row["seed"] == 1)


def test_ranking_puts_the_largest_effect_first(run: TraceRun) -> None:
    rows = run_query(run, "SELECT attribute, measure, component, rank FROM ranking").to_pylist()
    first = {(row["attribute"], row["measure"]): row for row in reversed(rows)}
    assert {row["component"] for row in first.values()} == {"text_encoder.layers.0.mlp"}
    assert {row["rank"] for row in rows} == {1}  # one or two captions tell nothing apart


def test_views_of_an_unstarted_run_are_empty(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    for view in ("trials", "failures", *STATISTICS_VIEWS):
        assert run_query(run, f"SELECT * FROM {view}").num_rows == 0
    assert run_query(run, "SELECT * FROM captions").num_rows == 3
    assert run_query(run, "SELECT * FROM components").num_rows == 2


def test_a_query_whose_parts_are_packed_meanwhile_reads_them_first(
    run: TraceRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run_query(run, "SELECT * FROM scores ORDER BY ALL")
    lock = jobs.query.opened.lock

    def pack_and_lock(*arguments: Any) -> None:
        pack(run, 0)
        lock(*arguments)

    monkeypatch.setattr(jobs.query.opened, "lock", pack_and_lock)
    assert run_query(run, "SELECT * FROM scores ORDER BY ALL").equals(before)
    assert not run.live().parts
    # Again with parts that go each time they are listed, as at the end of another group.
    for chunk in range(run.num_chunks):
        commit_scores(run, chunk)
    Path(run.location, "packs", "g000000.parquet").unlink()
    monkeypatch.setattr(jobs.query.select, "in_place", jobs.query.select.read_first)
    assert run_query(run, "SELECT * FROM scores ORDER BY ALL").equals(before)


def test_failures_view(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    failure = {"unit_id": "u", "error": "E", "message": 'it\'s "bad"', "traceback": "t"}
    run.commit(Task(chunk=1), [], [Failure(**failure)], units=2)
    found = run_query(run, "SELECT * FROM failures").to_pylist()
    assert found == [{**failure, "chunk": 1, "generation": 0}]
    again = {**failure, "unit_id": "v"}
    run.commit(Task(chunk=1, generation=1), [], [Failure(**again)], units=1)
    found = run_query(run, "SELECT * FROM failures").to_pylist()
    assert found == [{**again, "chunk": 1, "generation": 1}]


def test_catalog_opens_from_any_folder(run: TraceRun, tmp_path: Path) -> None:
    write_catalog(run)
    path = Path(run.location)
    moved = path.rename(path.with_name("moved"))
    assert catalog_state(open_run(moved)) == CatalogState(is_anchored=False)
    assert list(repair(open_run(moved), examine(str(moved), lambda _: None))) == []
    with duckdb.connect(str(moved / CATALOG), read_only=True) as connection, chdir("/"):
        (tags,) = connection.execute(
            "SELECT tags FROM duckdb_databases() WHERE NOT internal"
        ).fetchall()
        assert tags[0]["storage_version"].startswith("v1.2.0")
        assert connection.execute("SELECT count(*) FROM trials").fetchall() == [(24,)]
        parts = {part.name: part.read_bytes() for part in (moved / "parts").glob("c*")}
        pack(open_run(moved), 0)
        assert connection.execute("SELECT count(*) FROM trials").fetchall() == [(24,)]
        for name, content in parts.items():
            (moved / "parts" / name).write_bytes(content)
        assert connection.execute("SELECT count(*) FROM trials").fetchall() == [(24,)]
        assert connection.execute("SELECT count(*) FROM commits").fetchall() == [(len(parts),)]
