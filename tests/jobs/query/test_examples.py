"""Every example query runs on a small real run, and some answers are computed again."""

from pathlib import Path
from statistics import correlation
from typing import Any

import numpy as np
import pytest

from jobs.query.examples import EXAMPLES, example_sql
from jobs.query.opened import Views
from jobs.query.results import query
from jobs.query.select import opened_views, run_query
from jobs.runs.parts import Failure
from jobs.runs.run import IdentifiedUnit, Task
from jobs.runs.trace_run import TraceRun
from schemas.caption import Caption
from schemas.component import Part
from schemas.errors import QueryRefused
from schemas.intervention import Intervention, PatchKind
from schemas.plan import TracePlan
from tests.made_up.runs import commit_all, score_row
from tests.made_up.runs import make_run as make_patched_run
from tests.made_up.small_run import commit_scores, make_run

ONE = {"r": "run"}
EMPTY = {"failures", "shared-components", "noises", "sets", "set-curves"}
"""Without a row, as nothing fails, weights are random, and there is one noise and no set: they are
tested by themselves."""


@pytest.mark.parametrize(
    "example", [e for e in EXAMPLES if e.of == "run"], ids=lambda example: example.name
)
def test_every_example_answers(traced_run: TraceRun, example) -> None:  # noqa: ANN001
    runs = {"one": traced_run, "the other": traced_run}
    found = query(runs, example_sql(example.name, dict.fromkeys(runs, "run")))
    assert found.num_columns > 1
    assert (found.num_rows > 0) == (example.name not in EMPTY)
    assert example.answers.endswith("?")


def test_states_are_not_mixed_with_contributions(tmp_path: Path) -> None:
    patches = {"s": (PatchKind.STATE,), "b": (PatchKind.STATE, PatchKind.CONTRIBUTION)}
    runs = {name: made_up_run(tmp_path / name, patches=kinds) for name, kinds in patches.items()}
    single = {e.name: e.sql for e in EXAMPLES if e.of == "run" and e.num_runs == 1}
    with opened_views(runs["s"]) as of_states, opened_views(runs["b"]) as of_both:
        for name in single.keys() - EMPTY - {"chunks"}:
            expected, found = (states_in(views, single[name]) for views in (of_states, of_both))
            assert expected == found != [], name
    for name in ("compare-runs", "agreement-of-runs"):
        sql = example_sql(name, dict.fromkeys(runs, "run"))
        kinds = {row["patch_kind"] for row in query(runs, sql).to_pylist()}
        assert kinds == {"state"}, "one run has no contributions"


CORRECTED = "q_differs"
"""A column that counts the tests of all kinds of patch."""


def states_in(views: Views, sql: str) -> list[str]:
    """Return a query's rows as text, in any order, without those of contributions."""
    return sorted(
        str(
            {
                k: round(v, 9) if isinstance(v, float) else v
                for k, v in row.items()
                if k != CORRECTED
            }
        )
        for row in views.query(sql).to_pylist()
        if row.get("patch_kind", "state") == "state"
    )


def made_up_run(path: Path, *, patches: tuple[PatchKind, ...]) -> TraceRun:
    """Return a run in which each component's state restores another share, and no contribution
    does anything."""
    interventions = (Intervention.RESTORE, Intervention.OTHER_DRAW)
    plan = TracePlan(
        scorer="builtin:emoji-sd",
        captions=tuple(
            Caption(caption=f"{attribute} {n}", subject=attribute, attribute=attribute)
            for attribute in ("object", "style")
            for n in range(8)
        ),
        parts=(Part.TEXT_ENCODER,),
        measures=("target",),
        interventions=interventions,
        patches=patches,
        seeds=(0, 1),
    )
    run = make_patched_run(path, plan, components=3)

    def scores(row: IdentifiedUnit[Any]) -> list[dict[str, Any]]:
        noise = np.random.default_rng([row.unit.seed, *row.unit.caption.caption.encode()])
        return [
            score_row(
                row,
                component,
                intervention=intervention.value,
                patch_kind=patch.value,
                measure="target",
                clean=0.6,
                corrupted=0.2,
                patched=0.2 + (does / (1 + number)) + 0.02 * noise.normal(),
            )
            for patch in patches
            for number, component in enumerate(row.unit.components)
            for intervention in interventions
            for does in [0.3 * (intervention is Intervention.RESTORE) * (patch is PatchKind.STATE)]
        ]

    commit_all(run, scores)
    return run


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
