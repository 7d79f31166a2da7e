"""Exact plans of screened runs: who is traced, what is chosen, and that the plan says it all."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from jobs.doctor.examine import examine
from jobs.doctor.findings import State
from jobs.query.select import run_query
from jobs.runs.run import Task
from jobs.runs.trace_run import TraceRun, open_run
from jobs.tracing.cost import plan_cost
from jobs.tracing.exact_plans import ExactRequest, exact_plan
from jobs.tracing.plan import check_plan, make_plan
from jobs.tracing.trace import prepare_run
from jobs.tracing.tracer import TraceWorker
from schemas.component import Part
from schemas.errors import PlanError
from schemas.plan import TracePlan
from tests.made_up.screened_run import NAMES, WINDOWS, effects, make_exact_run, make_screened_run
from tests.rounding import ROUNDING

REQUEST = ExactRequest(top=3, random=2)


def test_captions_have_one_use_each(tmp_path: Path) -> None:
    """A quarter is exact, half of the others is ranked on; the screen's scores change neither."""
    plans = [
        exact_plan(make_screened_run(tmp_path / str(seed), seed=seed), REQUEST) for seed in (0, 1)
    ]
    for plan in plans:
        assert plan.exact_states is not None
        exact = {caption.id for caption in plan.captions}
        ranked = set(plan.exact_states.ranked_captions)
        assert (len(exact), len(ranked), exact & ranked) == (6, 9, set())
    assert plans[0].captions == plans[1].captions
    assert plans[0].exact_states != plans[1].exact_states


def test_the_first_of_the_ranking_are_chosen_and_some_of_the_others(tmp_path: Path) -> None:
    run = make_screened_run(tmp_path / "run", attributes=("object", "style"))
    plan = exact_plan(run, REQUEST)
    chosen = plan.exact_states
    assert chosen is not None
    assert (chosen.chosen_from, chosen.measure) == (run.id, "target")
    assert [(c.attribute, c.part) for c in chosen.chosen] == [
        ("object", Part.DENOISER),
        ("style", Part.DENOISER),
    ]
    ranked = [c for c in run.plan.captions if c.id in chosen.ranked_captions]
    for each in chosen.chosen:
        means = {
            f"{name}@{start}:{stop}": np.mean(
                [
                    effects(0, caption.caption, name, start)[1]
                    for caption in ranked
                    if caption.attribute == each.attribute
                ]
            )
            for name in NAMES
            for start, stop in WINDOWS
        }
        assert list(each.top) == sorted(means, key=lambda name: -means[name])[:3]
        assert len(each.random) == 2
        assert not set(each.random) & set(each.top)
        assert each.screened == len(NAMES) * len(WINDOWS)
    assert plan.screen is None
    assert exact_plan(open_run(run.location), REQUEST) == plan
    assert make_plan(plan.model_dump()) == plan
    assert TracePlan.model_validate_json(plan.model_dump_json()) == plan


def test_a_run_has_the_chosen_states_alone(tmp_path: Path) -> None:
    plan = exact_plan(make_screened_run(tmp_path / "a", attributes=("object", "style")), REQUEST)
    run = make_exact_run(tmp_path / "b", plan)
    found = run_query(
        run,
        "SELECT DISTINCT attribute, component || '@' || step_start || ':' || step_stop AS state "
        "FROM caption_effects",
    ).to_pylist()
    assert plan.exact_states is not None
    assert {(row["attribute"], row["state"]) for row in found} == {
        (each.attribute, name) for each in plan.exact_states.chosen for name in each.every
    }
    assert not [f for f in examine(run.location, lambda _: None).findings if f.state is State.WRONG]


@pytest.mark.parametrize(
    ("run", "request_", "said"),
    [
        ({"screen": None}, REQUEST, "was not screened"),
        ({"is_whole": False}, REQUEST, "has screened 0 of 24 units"),
        ({"captions": 12}, REQUEST, "12 captions of attribute 'object': at --share 0.25 3 are"),
        ({}, ExactRequest(top=3, share=0.7), "3 ranked on, and each takes 5"),
        ({}, ExactRequest(top=32), "ranks 32 states of the denoiser .* --exact takes fewer"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(
    tmp_path: Path, run: dict[str, Any], request_: ExactRequest, said: str
) -> None:
    with pytest.raises(PlanError, match=said):
        exact_plan(make_screened_run(tmp_path / "run", **run), request_)


def test_a_plan_that_contradicts_its_states_is_refused(tmp_path: Path) -> None:
    run = make_screened_run(tmp_path / "run")
    fields = exact_plan(run, REQUEST).model_dump()
    states = fields["exact_states"]
    (chosen,) = states["chosen"]
    twice = {**chosen, "random": chosen["top"][:1]}
    unknown = {**chosen, "top": (f"{NAMES[0]}@0:4",)}
    ranked = [c for c in run.plan.captions if c.id in states["ranked_captions"]]
    for change, said in (
        ({"screen": "relp"}, "without a screen"),
        ({"components": None}, "are of components"),
        ({"captions": [*fields["captions"], ranked[0]]}, "ranked on a caption of the plan"),
        ({"exact_states": {**states, "chosen": [twice]}}, "twice"),
        ({"exact_states": {**states, "chosen": [unknown]}}, "which the plan does not trace"),
        ({"exact_states": {**states, "chosen": [chosen, chosen]}}, "every attribute and part"),
        ({"parts": ("denoiser", "text-encoder")}, "every attribute and part"),
    ):
        with pytest.raises(ValidationError, match=said):
            TracePlan.model_validate({**fields, **change})


@pytest.fixture(scope="module")
def screened(
    tmp_path_factory: pytest.TempPathFactory, tiny_sd: Path, tiny_scorer: Path
) -> TraceRun:
    """Return a screened run of a tiny model, of both parts."""
    fields = {
        "model": str(tiny_sd),
        "scorer": str(tiny_scorer),
        "captions": [
            {"caption": f"a {color} {noun}", "subject": noun, "attribute": "object", "target": noun}
            for color in ("red", "blue", "green", "big")
            for noun in ("apple", "dog", "cat", "house", "car")
        ],
        "windows": ["each"],
        "tokens": ["last_subject", "all"],
        "kinds": ["resnet", "mlp"],
        "measures": ["target"],
        "numerics": {"steps": 2},
        "screen": "attribution",
    }
    return traced(tmp_path_factory.mktemp("runs") / "screened", make_plan(fields))


def traced(path: Path, plan: TracePlan) -> TraceRun:
    run = prepare_run(path, check_plan(plan))
    worker = TraceWorker(run.location, rows=16, threads=1)
    assert not sum(worker.run(Task(chunk=chunk)).failed for chunk in range(run.num_chunks))
    return run


def test_exact_rows_are_those_of_a_whole_exact_run(tmp_path: Path, screened: TraceRun) -> None:
    """Both parts of a real model; their number and cost are as planned."""
    plan = exact_plan(screened, ExactRequest(top=2, random=1))
    run = traced(tmp_path / "exact", plan)
    whole = screened.plan.model_copy(update={"captions": plan.captions[:1], "screen": None})
    every = traced(tmp_path / "whole", whole)
    sql = f"""SELECT part, component, token, step_start, patched FROM scores
      WHERE caption_id = '{plan.captions[0].id}'"""
    scores = {tuple(row.values())[:-1]: row["patched"] for row in run_query(every, sql).to_pylist()}
    rows = run_query(run, sql).to_pylist()
    assert [row["part"] for row in rows].count("denoiser") == 3
    assert len(rows) == 6
    for row in rows:
        assert row["patched"] == pytest.approx(scores[tuple(row.values())[:-1]], abs=ROUNDING)
    assert plan_cost(check_plan(plan)).patched_runs == len(plan.captions) * 6
    assert not [f for f in examine(run.location, lambda _: None).findings if f.state is State.WRONG]
