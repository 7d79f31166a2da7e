"""Causal states that are reported where there are none: the rate is held over whole sets."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.query.select import run_query
from jobs.runs.parts import Commit, PartContent, part_name, write_part
from jobs.runs.trace_run import TraceRun
from schemas.caption import Caption
from schemas.component import Part
from schemas.intervention import Intervention
from schemas.plan import TracePlan
from schemas.statistics import DISCOVERY_RATE
from schemas.tables import SCORES
from tests.made_up.effects import FAILING, SKEWS, controlled, simulated, skewed
from tests.made_up.runs import make_components, make_run

NULLS = 40
ATTRIBUTES = 5
"""Those of a run, few because each is compared with each other one."""
CAPTIONS = 20
STATES = 36


def most(runs: int, rate: float = DISCOVERY_RATE) -> float:
    """Return how many of `runs` may report a state: a share of them and three binomial errors."""
    return rate * runs + 3 * np.sqrt(rate * (1 - rate) * runs)


@pytest.mark.slow
@pytest.mark.parametrize("captions", [12, 36, 72])
def test_without_causal_states_few_runs_report_one(captions: int) -> None:
    found = controlled(runs=300, captions=captions)
    reporting = {rule: is_found_RS.any(1).sum() for rule, is_found_RS in found.items()}
    assert reporting["new"] <= most(300) < reporting["old"]


@pytest.mark.slow
@pytest.mark.parametrize("captions", [36, 72])
def test_skewed_effects_without_a_mean_are_seldom_called_causal(captions: int) -> None:
    found = skewed(SKEWS["skewness -2"], runs=300, captions=captions)
    reporting = {rule: is_found_RS.any(1).sum() for rule, is_found_RS in found.items()}
    assert reporting["new"] <= most(300, 0.08) < reporting["old"]


OLD_RULE = """
SELECT attribute FROM ranking
JOIN controlled_effects AS seed USING (attribute, component)
JOIN controlled_effects AS caption USING (attribute, component)
WHERE intervention = 'restore' AND seed.control = 'other-seed'
  AND caption.control = 'other-caption'
  AND ranking.q_value < 0.05 AND ranking.mean_ie > 0
  AND seed.q_control < 0.05 AND seed.control_ie > 0
  AND caption.q_difference < 0.05 AND caption.mean_difference > 0
"""
"""States that are discoveries by each test's own q-values: what version 1 called causal."""


def test_views_report_few_states_without_causal_ones(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    seen = new = old = 0
    for number in range(NULLS // ATTRIBUTES):
        run = null_run(tmp_path / f"run{number}", generator)
        seen += run_query(run, "SELECT DISTINCT attribute FROM ranking").num_rows
        new += len(set(run_query(run, "FROM causal_states")["attribute"].to_pylist()))
        old += len(set(run_query(run, OLD_RULE)["attribute"].to_pylist()))
    assert seen == NULLS
    assert new <= most(NULLS) < old


def null_run(location: Path, generator: np.random.Generator) -> TraceRun:
    """Return a run of ATTRIBUTES, each with captions and a simulated null of its own."""
    plan = TracePlan(
        scorer="builtin:emoji-sd",
        captions=tuple(
            Caption(caption=f"{name} {n}", subject=name, attribute=name)
            for name in attributes()
            for n in range(CAPTIONS)
        ),
        parts=(Part.TEXT_ENCODER,),
        measures=("target",),
        interventions=tuple(Intervention(name) for name in FAILING),
    )
    run = make_run(location, plan, components=STATES)
    table = pa.concat_tables(null_scores(run, generator))
    done = Commit(chunk=0, generation=0, units=1, failures=())
    part = PartContent(table=table, commits=(done,))
    content = write_part([part], run_id=run.id, schema=SCORES)
    run.storage.create(part_name(0), content)
    return run


def attributes() -> list[str]:
    return [f"null{number:02}" for number in range(ATTRIBUTES)]


def null_scores(run: TraceRun, generator: np.random.Generator) -> list[pa.Table]:
    components: pa.Array[Any] = pa.array([component.name for component in make_components(STATES)])
    tables: list[pa.Table] = []
    for attribute in attributes():
        ids: pa.Array[Any] = pa.array([c.id for c in run.plan.captions if c.attribute == attribute])
        state, caption = np.indices((STATES, CAPTIONS)).reshape(2, -1)
        for intervention, ie_SC in simulated(generator, captions=CAPTIONS, states=STATES).items():
            fixed = {
                "unit_id": "u" * 32, "seed": 0, "draw": 0, "noise_sigmas": 3.0,
                "part": "text-encoder", "intervention": intervention, "token": "last_subject",
                "step_start": 0, "step_stop": 50, "path": "tokens", "patch_kind": "state",
                "measure": "target", "estimate": "exact", "clean": 0.3, "corrupted": 0.1,
            }  # fmt: skip
            columns = {
                **{name: [value] * ie_SC.size for name, value in fixed.items()},
                "caption_id": ids.take(pa.array(caption, pa.int64())),
                "component": components.take(pa.array(state, pa.int64())),
                "position": pa.nulls(ie_SC.size, pa.int32()),
                "token_text": pa.nulls(ie_SC.size, pa.string()),
                "patched": 0.1 + ie_SC.ravel(),
            }
            arrays = [pa.array(columns[field.name], field.type) for field in SCORES]
            tables.append(pa.table(arrays, schema=SCORES))
    return tables
