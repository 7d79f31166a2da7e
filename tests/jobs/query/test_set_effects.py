"""The views of sets: their components, their effects, and curves over their size."""

from pathlib import Path

import numpy as np
import pytest

from engine.statistics.inference import draws_of, mean_estimates, ratio_interval
from jobs.query.catalog import write_catalog
from jobs.query.examples import example_sql
from jobs.query.export import export_run
from jobs.query.rank import Choice, leading, ranked
from jobs.query.select import opened_views, run_query
from jobs.runs.trace_run import TraceRun
from schemas.component import Part
from schemas.component_set import ComponentSet, Curve
from schemas.intervention import Intervention
from schemas.table_format import TableFormat
from tests.docs.shown import ROOT, blocks
from tests.jobs.query.test_catalog import CATALOG, asked
from tests.made_up.set_run import CLEAN, CORRUPTED, make_set_run, set_of

TOTAL = CLEAN - CORRUPTED
SETS = (
    set_of("top-1", 1, curve=Curve.TOP),
    set_of("top-2", 2, curve=Curve.TOP),
    set_of("random-2-1", 2, curve=Curve.RANDOM, first=2),
    set_of("random-2-2", 2, curve=Curve.RANDOM, first=4),
    set_of("mine", 3),
    set_of("text", 2, part=Part.TEXT_ENCODER, attribute="object"),
)
SHARE = {"top-1": 0.4, "top-2": 0.9, "random-2-1": 0.1, "random-2-2": 0.3, "mine": 0.5, "text": 1.0}
CAPTIONS = 12


def share_of(each: ComponentSet, intervention: Intervention, caption: int) -> float:
    less = 0.0 if intervention is Intervention.RESTORE else 0.2
    return SHARE[each.name] - less + 0.01 * ((caption * 5) % 7)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TraceRun:
    made = make_set_run(tmp_path_factory.mktemp("runs") / "r", SETS, share_of, captions=CAPTIONS)
    write_catalog(made)
    return made


def shares(name: str, intervention: Intervention) -> list[float]:
    each = next(each for each in SETS if each.name == name)
    return [share_of(each, intervention, caption) for caption in range(CAPTIONS)]


def test_each_set_has_its_mean_and_interval(run: TraceRun) -> None:
    rows = run_query(run, "FROM set_effects ORDER BY set_name, intervention").to_pylist()
    assert len(rows) == 2 * len(SETS)
    ids = tuple(sorted(caption.id for caption in run.plan.captions))
    number = {caption.id: n for n, caption in enumerate(run.plan.captions)}
    for row in rows:
        by_number = shares(row["set_name"], Intervention(row["intervention"]))
        ie = np.array([[TOTAL * by_number[number[caption]] for caption in ids]])
        means = mean_estimates(ie, draws_of(ids))
        low, high = ratio_interval(ie, np.full_like(ie, TOTAL), draws_of(ids))
        got = [row[n] for n in ("mean_ie", "ie_low", "ie_high", "recovery_low", "recovery_high")]
        expected = [means.mean_S[0], means.low_S[0], means.high_S[0], low[0], high[0]]
        assert got == pytest.approx(expected, abs=1e-9), row["set_name"]
        assert row["mean_recovery"] == pytest.approx(np.mean(by_number))
        assert (row["num_captions"], row["num_trials"]) == (CAPTIONS, CAPTIONS)
    sizes = {row["set_name"]: (row["size"], row["part"], row["curve"]) for row in rows}
    assert sizes["top-2"] == (2, "denoiser", "top")
    assert sizes["mine"] == (3, "denoiser", None)
    assert sizes["text"] == (2, "text-encoder", None)


def test_a_curve_averages_sets_of_one_size_caption_by_caption(run: TraceRun) -> None:
    rows = run_query(run, "FROM set_curves ORDER BY curve, size, intervention").to_pylist()
    found = {(row["curve"], row["size"], row["intervention"]): row for row in rows}
    assert set(found) == {
        (curve, size, intervention)
        for curve, size in (("top", 1), ("top", 2), ("random", 2))
        for intervention in ("restore", "corrupt")
    }
    random = found["random", 2, "restore"]
    every = [shares(name, Intervention.RESTORE) for name in ("random-2-1", "random-2-2")]
    assert random["mean_recovery"] == pytest.approx(np.mean(every))
    assert (random["num_sets"], random["num_captions"]) == (2, CAPTIONS)
    assert random["num_trials"] == 2 * CAPTIONS
    top = found["top", 2, "corrupt"]
    assert top["mean_recovery"] == pytest.approx(np.mean(shares("top-2", Intervention.CORRUPT)))
    assert top["num_sets"] == 1


def test_the_members_of_a_set_are_listed(run: TraceRun) -> None:
    rows = run_query(run, "FROM set_members WHERE set_name = 'text' ORDER BY component").to_pylist()
    assert [row["component"] for row in rows] == [
        "text_encoder.layers.0.self_attn", "text_encoder.layers.1.self_attn",
    ]  # fmt: skip
    assert {(row["part"], row["token"], row["attribute"], row["curve"]) for row in rows} == {
        ("text-encoder", "last_subject", "object", None)
    }
    sizes = "SELECT set_name, count(*) AS n FROM set_members GROUP BY ALL"
    assert {r["set_name"]: r["n"] for r in run_query(run, sizes).to_pylist()} == {
        each.name: len(each.members) for each in SETS
    }


def test_sets_are_ranked_with_no_component(run: TraceRun) -> None:
    with opened_views(run) as views:
        assert ranked(views, Choice()).num_rows == leading(views, Choice()).num_rows == 0
    scored = run_query(run, "SELECT count(DISTINCT component) AS n FROM caption_effects")
    assert scored["n"].to_pylist() == [len(SETS)]


def test_the_examples_and_recipes_answer(run: TraceRun) -> None:
    curves = run_query(run, example_sql("set-curves", {"r": "run"})).to_pylist()
    assert [row["size"] for row in curves if row["curve"] == "top"] == [1, 2, 1, 2]
    sets = run_query(run, example_sql("sets", {"r": "run"})).to_pylist()
    assert {len(row["components"]) for row in sets if row["set_name"] == "mine"} == {3}
    recipes = [sql for language, sql in blocks(ROOT / "docs/sql.md") if language == "sql"]
    of_sets = [sql for sql in recipes if "set_curves" in sql or "set_members" in sql]
    assert len(of_sets) == 2
    assert all(run_query(run, sql).num_rows for sql in of_sets)


def test_the_catalog_and_an_export_have_the_sets(run: TraceRun, tmp_path: Path) -> None:
    effects = run_query(run, "FROM set_effects").num_rows
    exported = tmp_path / "out.duckdb"
    export_run(run, exported, TableFormat.DUCKDB, note=lambda _: None)
    for database in (Path(run.location, CATALOG), exported):
        (counts,) = asked(
            database,
            "SELECT (SELECT count(*) FROM set_effects) AS effects, "
            "(SELECT count(*) FROM set_members) AS members",
        )
        assert counts == {"effects": effects, "members": sum(len(s.members) for s in SETS)}
