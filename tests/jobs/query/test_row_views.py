"""Evaluations and attacks in SQL: their rows, what follows from them, and what is refused."""

from pathlib import Path

import pytest

from jobs.evaluation.by_concept import results_by_concept
from jobs.query.examples import EXAMPLES, example_sql
from jobs.query.results import query
from jobs.query.select import run_query
from jobs.runs.attack_run import AttackRun
from jobs.runs.evaluation_run import EvaluationRun
from jobs.runs.packs import pack
from jobs.runs.parts import Failure
from jobs.runs.run import Task
from jobs.runs.trace_run import TraceRun
from schemas.documentation import VIEWS_OF
from schemas.errors import QueryRefused
from tests.made_up.attacked import make_attack
from tests.made_up.evaluation_rows import Drawn, make_evaluation
from tests.made_up.small_run import commit_scores, make_run

DRAWN = (
    Drawn(name="cat", images=10, before=8, after=2),
    Drawn(name="bus", images=10, before=10, after=0, replacement="boat", replaced=7),
    Drawn(name="dog", images=6, before=6, after=1, nearest="cat"),
)


@pytest.fixture
def evaluation(tmp_path: Path) -> EvaluationRun:
    run = make_evaluation(tmp_path / "evaluation", DRAWN)
    run.complete()
    return run


@pytest.fixture
def attack(tmp_path: Path) -> AttackRun:
    return make_attack(tmp_path / "attack")


def test_concepts_are_those_of_the_table_by_concept(evaluation: EvaluationRun) -> None:
    found = {row["concept"]: row for row in run_query(evaluation, "FROM concepts").to_pylist()}
    assert {*found} == {"cat", "bus"}
    for result in results_by_concept(evaluation):
        row = found[result.concept]
        for name in ("images", "right_before", "recognized", "still_recognised", "replacement"):
            assert row[name] == getattr(result, name), name
        assert tuple(row["moved"]) == result.moved
    assert found["cat"]["still_recognised"] == 0.25
    assert found["bus"]["replaced"] == 7
    assert run_query(evaluation, "FROM images").num_rows == 26


def test_views_are_those_that_are_documented(evaluation: EvaluationRun, attack: AttackRun) -> None:
    for run in (evaluation, attack):
        for view in VIEWS_OF[run.noun]:
            columns = run_query(run, f"DESCRIBE {view.name}").to_pylist()
            found = {c["column_name"]: c["column_type"].replace('"', "") for c in columns}
            assert found == {c.name: c.type.replace('"', "") for c in view.columns}, view.name
            assert all(column.meaning for column in view.columns)
    assert run_query(attack, "SELECT count(*) AS n FROM commits")["n"].to_pylist() == [1]


def test_what_failed_and_what_was_packed_is_read(evaluation: EvaluationRun) -> None:
    (unit,) = evaluation.unit_rows(Task(chunk=0))
    failure = Failure(unit_id=unit.unit_id, error="ValueError", message="m", traceback="t")
    evaluation.commit(Task(chunk=0, generation=1), [], [failure], units=1)
    assert run_query(evaluation, "FROM failures")["error"].to_pylist() == ["ValueError"]
    before = run_query(evaluation, "FROM images ORDER BY ALL")
    pack(evaluation, 0)
    assert run_query(evaluation, "FROM images ORDER BY ALL").equals(before)


def test_examples_answer(evaluation: EvaluationRun, attack: AttackRun) -> None:
    for run in (evaluation, attack):
        for example in (e for e in EXAMPLES if e.of == run.noun):
            assert query(run, example_sql(example.name, {"r": run.noun})).num_rows, example.name
    worst = query(evaluation, example_sql("concepts-that-survive", {"r": "evaluation"}))
    assert worst["concept"].to_pylist() == ["cat", "bus"]
    back = query(attack, example_sql("attacks-that-succeed", {"r": "attack"})).to_pylist()
    assert back[0] == {"concept": "cat", "attack": "prompt", "unedited": 0.75, "edited": 0.5}


def test_a_trace_and_its_edits_evaluation_are_joined(
    evaluation: EvaluationRun, tmp_path: Path
) -> None:
    trace = make_run(tmp_path / "trace")
    for chunk in range(trace.num_chunks):
        commit_scores(trace, chunk)
    runs: dict[str, TraceRun | EvaluationRun] = {"trace": trace, "edit": evaluation}
    found = query(runs, "SELECT count(*) AS n FROM ranking, edit.concepts")
    assert found["n"].to_pylist() == [2 * run_query(trace, "FROM ranking").num_rows]
    turned = dict(reversed(runs.items()))
    assert query(turned, "SELECT count(*) AS n FROM concepts, trace.ranking").equals(found)


def test_what_an_evaluation_has_not_is_refused(evaluation: EvaluationRun) -> None:
    with pytest.raises(
        QueryRefused,
        match=r"no view 'ranking', .*: the views are commits, concepts, failures, images",
    ):
        run_query(evaluation, "FROM ranking")
    with pytest.raises(QueryRefused, match="'failures' is of kind run, and e of kind evaluation"):
        example_sql("failures", {"e": "evaluation"})
    with pytest.raises(QueryRefused, match="one SELECT"):
        run_query(evaluation, "DROP VIEW concepts")
