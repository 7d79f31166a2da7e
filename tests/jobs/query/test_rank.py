"""Rankings by choice, and statistics that only a statement which reads them starts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import jobs.query.opened
from jobs.query.kept_statistics import FOLDER
from jobs.query.opened import Views
from jobs.query.rank import (
    BEYOND,
    GROUP,
    Choice,
    best_site,
    check_choice,
    check_control,
    concentrations,
    last_ranks,
    leading,
    overlaps,
    ranked,
    ranked_beyond,
)
from jobs.query.select import opened_views, run_query
from jobs.runs.packs import pack
from jobs.runs.trace_run import TraceRun
from schemas.errors import PlanError
from schemas.intervention import Intervention
from tests.made_up.report_run import make_report_run
from tests.made_up.small_run import commit_scores, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TraceRun:
    return make_report_run(tmp_path_factory.mktemp("runs") / "r")


@pytest.fixture(scope="module")
def views(run: TraceRun) -> Iterator[Views]:
    with opened_views(run) as views:
        yield views


def test_the_first_states_of_each_group_are_the_largest(views: Views) -> None:
    everything = ranked(views, Choice(intervention=None)).to_pylist()
    first = ranked(views, Choice(intervention=None), top=2).to_pylist()
    group = ("attribute", "part", "intervention", "measure")
    groups = {tuple(row[name] for name in group) for row in everything}
    assert len({row["intervention"] for row in everything}) > 1
    for values in groups:
        own = [
            [row for row in rows if tuple(row[name] for name in group) == values]
            for rows in (everything, first)
        ]
        assert own[1] == own[0][:2]
        effects = [row["mean_ie"] for row in own[0]]
        assert effects == sorted(effects, reverse=True)


def test_a_choice_holds_in_every_ranking(views: Views) -> None:
    chosen = Choice(attribute="object", part="denoiser", measure="target")
    for table in (ranked(views, chosen), concentrations(views, chosen), leading(views, chosen)):
        rows = table.to_pylist()
        assert rows
        assert {(row["attribute"], row["part"]) for row in rows} == {("object", "denoiser")}
    for row in overlaps(views, chosen).to_pylist():
        assert "object" in (row["attribute_a"], row["attribute_b"])
        assert (row["part"], row["measure"]) == ("denoiser", "target")


def test_states_beyond_a_control_are_ranked_by_the_difference(run: TraceRun, views: Views) -> None:
    control = next(i for i in Intervention if i in run.plan.interventions and i.value != "restore")
    table = ranked_beyond(views, Choice(measure="target", intervention=control), top=3)
    assert table.num_rows
    assert table.column_names == [column.split(" AS ")[-1] for column in BEYOND]
    expected = run_query(
        run,
        """SELECT component, mean_difference FROM controlled_effects
        WHERE control = $control AND measure = 'target' AND attribute = 'object'
          AND part = 'denoiser' ORDER BY mean_difference DESC LIMIT 3""",
        {"control": control.value},
    ).to_pylist()
    found = [
        {name: row[name] for name in ("component", "mean_difference")}
        for row in table.to_pylist()
        if (row["attribute"], row["part"]) == ("object", "denoiser")
    ]
    assert found == expected


def test_what_leads_is_the_first_of_the_ranking(views: Views) -> None:
    choice = Choice(measure="target")
    first = {row["attribute"]: row for row in ranked(views, choice, top=1).to_pylist()
             if row["part"] == "denoiser"}  # fmt: skip
    for row in leading(views, choice).to_pylist():
        if row["part"] == "denoiser":
            best = first[row["attribute"]]
            assert row["component"] == best["component"]
            assert row["mean_ie"] == pytest.approx(best["mean_ie"])
            assert row["se_ie"] == pytest.approx(best["se_ie"])


def test_the_site_of_an_edit_is_in_the_chosen_part(views: Views) -> None:
    assert best_site(views, Choice(part="denoiser", measure="no such measure")) is None


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Choice(attribute="smell"), "no attribute 'smell': it has object"),
        (Choice(part="vae"), "no part 'vae'"),
        (Choice(measure="taste"), "no measure 'taste'"),
        (Choice(intervention="swap"), "no intervention 'swap'"),
    ],
)
def test_a_choice_that_a_run_lacks_is_named(run: TraceRun, choice: Choice, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        check_choice(run, choice)


def test_only_a_control_is_ranked_beyond() -> None:
    check_control(Intervention.OTHER_SEED)
    with pytest.raises(PlanError, match="not 'zero'"):
        check_control(Intervention.ZERO)


@pytest.fixture
def small(tmp_path: Path) -> TraceRun:
    run = make_run(tmp_path / "r")
    for chunk in range(run.num_chunks):
        commit_scores(run, chunk)
    return run


def kept(run: TraceRun) -> list[str]:
    return [path.name for path in Path(run.location, FOLDER).glob("*.n*.parquet")]


def test_statistics_are_made_only_for_a_statement_that_reads_them(small: TraceRun) -> None:
    for sql in (
        "SELECT 'ranking' AS a FROM scores -- FROM ranking",
        "WITH ranking AS (SELECT clean FROM scores) SELECT * FROM ranking",
        "PIVOT scores ON measure USING avg(clean) -- ranking",
        "PIVOT (SELECT measure, clean, 'the ranking' AS a FROM scores) ON measure USING avg(clean)",
    ):
        assert run_query(small, sql).num_rows
        assert not kept(small)
    assert run_query(small, "PIVOT 'Ranking' ON measure USING avg(mean_ie)").num_rows
    assert kept(small)


@pytest.mark.parametrize("view", ["ranking", "'ranking'", "'rank' || 'ing'"])
def test_a_histogram_of_estimates_has_them(view: str, small: TraceRun) -> None:
    (states,) = run_query(small, "SELECT count(mean_ie) AS n FROM ranking").to_pylist()
    for path in Path(small.location, FOLDER).glob("*.n*.parquet"):
        path.unlink()
    for sql in (
        f"SELECT sum(count)::INTEGER AS n FROM histogram({view}, mean_ie)",
        f"WITH h AS (FROM histogram_values({view}, mean_ie)) FROM h SELECT sum(count)::INT AS n",
    ):
        assert run_query(small, sql).to_pylist() == [states]


def test_views_that_are_opened_once_fill_their_statistics_once(
    small: TraceRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled: list[str] = []
    fill = jobs.query.opened.fill_statistics

    def counted(connection: Any, run: TraceRun, files: Any, **options: Any) -> None:
        filled.append(run.name)
        fill(connection, run, files, **options)

    monkeypatch.setattr(jobs.query.opened, "fill_statistics", counted)
    with opened_views(small) as views:
        assert views.query("SELECT count(*) FROM scores").num_rows
        assert filled == []
        states = views.query("FROM ranking")
        pack(small, 0)
        assert views.query("FROM component_effects").num_rows == states.num_rows
        assert views.query("FROM ranking").equals(states)
    assert filled == [small.name]


def test_the_last_rank_counts_the_states_that_do_not_lie_below(views: Views) -> None:
    choice = Choice(measure="target")
    states = ranked(views, choice).to_pylist()
    last = last_ranks(views, choice, states)
    assert any(row["rank"] < end for row, end in zip(states, last, strict=True))
    for row, end in zip(states, last, strict=True):
        rivals = [other for other in states if all(other[g] == row[g] for g in GROUP)]
        lows = [other["ie_high"] for other in rivals if other["ie_high"] is not None]
        below = sum(high < row["ie_low"] for high in lows if row["ie_low"] is not None)
        assert row["rank"] <= end == len(rivals) - below
