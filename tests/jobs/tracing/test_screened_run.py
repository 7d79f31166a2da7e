"""A run of estimates: its rows say so, it claims nothing, and its plan refuses what it cannot."""

from pathlib import Path
from typing import Any

import pytest

from jobs.query.rank import Choice
from jobs.query.select import opened_views, run_query
from jobs.query.words import verdicts
from jobs.runs.run import Task
from jobs.runs.trace_run import open_run
from jobs.tracing.plan import check_plan, make_plan
from jobs.tracing.trace import prepare_run
from jobs.tracing.tracer import TraceWorker
from schemas.errors import PlanError
from tests.made_up.traced import CAPTIONS


@pytest.fixture(scope="module")
def fields(tiny_sd: Path, tiny_scorer: Path) -> dict[str, Any]:
    return {
        "model": str(tiny_sd),
        "scorer": str(tiny_scorer),
        "captions": CAPTIONS,
        "kinds": ["resnet", "mlp"],
        "windows": ["each"],
        "numerics": {"steps": 2},
        "screen": "attribution",
    }


def test_a_screened_run_is_of_estimates_and_claims_nothing(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    """A second worker that comes late adds no row."""
    run = prepare_run(tmp_path / "screened", check_plan(make_plan(fields)))
    worker = TraceWorker(run.location, rows=16, threads=1)
    tasks = [Task(chunk=chunk) for chunk in range(run.num_chunks)]
    assert not sum(worker.run(task).failed for task in tasks)
    worker.run(tasks[0])
    rows = run_query(run, "SELECT estimate, count(*) AS n FROM trials GROUP BY ALL").to_pylist()
    expected = run_query(run, "SELECT count(*) AS n FROM units").to_pylist()[0]["n"]
    assert [row["estimate"] for row in rows] == ["attribution"]
    assert rows[0]["n"] > expected
    ranked = run_query(run, "SELECT is_causal, p_causal, mean_ie FROM ranking").to_pylist()
    assert ranked
    assert not any(row["is_causal"] for row in ranked)
    assert {row["p_causal"] for row in ranked} == {None}
    with opened_views(run) as views:
        (sentence,) = verdicts(views, Choice())
    assert "estimates of a screen (attribution)" in sentence
    assert open_run(run.location).plan.screen == "attribution"


def test_a_screen_has_units_of_its_own(tmp_path: Path, fields: dict[str, Any]) -> None:
    """The ids tell exact and estimated rows of the same place apart."""
    runs = [
        prepare_run(tmp_path / str(screen), check_plan(make_plan({**fields, "screen": screen})))
        for screen in (None, "attribution", "relp")
    ]
    ids = [list(run.unit_ids) for run in runs]
    assert len({unit for own in ids for unit in own}) == 3 * len(ids[0])
    assert "screen" not in runs[0].plan.model_dump()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"consecutive": 2}, "patched at several together"),
        (
            {"kinds": ["block"], "parts": ["denoiser"], "patches": ["contribution"]},
            "patched at several together",
        ),
        ({"measures": ["clean-image"], "interventions": ["corrupt"]}, "has no slope"),
        ({"screen": "exact"}, "screen"),
    ],
)
def test_what_a_screen_cannot_estimate_is_refused(
    fields: dict[str, Any], change: dict[str, Any], said: str
) -> None:
    with pytest.raises(PlanError, match=said):
        check_plan(make_plan({**fields, **change}))
