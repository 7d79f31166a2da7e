"""Every example query runs on a small real run, and some answers are computed again."""

from pathlib import Path
from statistics import correlation

import pytest

from jobs.query.examples import EXAMPLES, example_sql
from jobs.query.results import query
from jobs.query.select import run_query
from jobs.runs.parts import Failure
from jobs.runs.run import Task
from jobs.runs.trace_run import TraceRun
from schemas.errors import QueryRefused
from tests.made_up.small_run import commit_scores, make_run

ONE = {"r": "run"}
EMPTY = {"failures", "shared-components", "noises"}
"""Without a row, as nothing fails, weights are random and there is one noise: they are tested by
themselves."""


@pytest.mark.parametrize(
    "example", [e for e in EXAMPLES if e.of == "run"], ids=lambda example: example.name
)
def test_every_example_answers(traced_run: TraceRun, example) -> None:  # noqa: ANN001
    runs = {"one": traced_run, "the other": traced_run}
    found = query(runs, example_sql(example.name, dict.fromkeys(runs, "run")))
    assert found.num_columns > 1
    assert (found.num_rows > 0) == (example.name not in EMPTY)
    assert example.answers.endswith("?")


def test_an_example_of_two_runs_asks_for_both() -> None:
    with pytest.raises(QueryRefused, match="compares two runs"):
        example_sql("compare-runs", ONE)
    with pytest.raises(QueryRefused, match="no example 'x': there are top-components"):
        example_sql("x", ONE)


def test_seeds_agree_as_plain_python_says(traced_run: TraceRun) -> None:
    effects = run_query(traced_run, "FROM effects WHERE intervention = 'restore'").to_pylist()
    for found in query(traced_run, example_sql("seed-agreement", ONE)).to_pylist():
        sums: dict[int, dict[tuple, float]] = {0: {}, 1: {}}
        for row in effects:
            if all(row[key] == found[key] for key in ("attribute", "part", "measure")):
                state = tuple(row[key] for key in ("component", "token", "step_start"))
                of_seed = sums[row["seed"]]
                of_seed[state] = of_seed.get(state, 0.0) + row["indirect_effect"]
        first, second = ([of[state] for state in sorted(sums[0])] for of in sums.values())
        assert found["num_states"] == len(first)
        assert found["correlation"] == pytest.approx(correlation(first, second))


def test_maps_have_a_column_a_step_and_a_token(traced_run: TraceRun) -> None:
    steps = query(traced_run, example_sql("layer-by-timestep", ONE))
    assert steps.column_names[-2:] == ["0", "1"]
    tokens = query(traced_run, example_sql("layer-by-token", ONE))
    assert tokens.column_names[-2:] == ["eos", "last_subject"]


def test_a_run_agrees_with_itself(traced_run: TraceRun) -> None:
    runs = {"one": traced_run, "two": traced_run}
    agreement = query(
        runs, example_sql("agreement-of-runs", dict.fromkeys(runs, "run"))
    ).to_pylist()
    known = [row["correlation"] for row in agreement if row["correlation"] is not None]
    assert known == pytest.approx([1.0] * len(known))
    assert known
    differences = query(runs, example_sql("compare-runs", dict.fromkeys(runs, "run")))["difference"]
    assert set(differences.to_pylist()) == {0.0}


def test_failures_and_chunks_count_units(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    commit_scores(run, 0)
    first, second = run.unit_rows(Task(chunk=1))
    failed = {"error": "ValueError", "traceback": "t"}
    failures = [
        Failure(unit_id=first.unit_id, message="too long\nsee above", **failed),
        Failure(unit_id=second.unit_id, message="too long", **failed),
    ]
    run.commit(Task(chunk=1), [], failures, units=2)
    (error,) = query(run, example_sql("failures", ONE)).to_pylist()
    assert (error["error"], error["first_line"], error["num_units"]) == (
        "ValueError",
        "too long",
        2,
    )
    chunks = query(run, example_sql("chunks", ONE)).to_pylist()
    counts = [tuple(chunk.values()) for chunk in chunks]
    assert counts == [(0, 2, 2, 0, 0), (1, 2, 0, 2, 0), (2, 2, 0, 0, 2)]
