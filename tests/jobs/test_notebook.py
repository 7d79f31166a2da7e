"""A few captions traced without Ray: what is kept, what is shown, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from jobs.notebook import trace
from jobs.query.results import rank
from jobs.runs.progress import Progress
from schemas.caption import Caption
from schemas.errors import PlanError, StoreError, TooManyFailures
from schemas.numerics import Numerics

APPLE = Caption(caption="a <red> apple", subject="apple", attribute="object", target="apple")
CASTLE = Caption(caption="an old castle", subject="castle", attribute="object", target="castle")


@pytest.fixture
def fields(tiny_sd: Path, tiny_scorer: Path) -> dict[str, Any]:
    return {
        "model": str(tiny_sd), "scorer": str(tiny_scorer), "kinds": ["mlp"], "tokens": ["words"],
        "parts": ["text-encoder"], "numerics": Numerics(steps=2), "rows": 8,
    }  # fmt: skip


def test_scores_end_with_the_trace_or_stay_where_they_are_asked(
    fields: dict[str, Any], tmp_path: Path
) -> None:
    seen: list[Progress] = []
    found = trace(APPLE, on_progress=seen.append, **fields)
    folder = Path(found.run.location)
    assert found.effects.num_rows == 2 * 6 * 2  # layers, tokens, measures
    assert rank(found.run, attribute="object").num_rows
    assert [progress.done for progress in seen] == [0, 1]
    assert found.run.plan.numerics.steps == 2
    del found
    assert not folder.exists()
    kept = trace([APPLE, CASTLE], run=tmp_path / "kept", **fields)
    seen.clear()
    again = trace([APPLE, CASTLE], run=tmp_path / "kept", on_progress=seen.append, **fields)
    assert [progress.done for progress in seen] == [2]  # nothing is left to trace
    assert again.effects.equals(kept.effects)
    with pytest.raises(StoreError, match="another captions"):
        trace(CASTLE, run=tmp_path / "kept", **fields)


def test_what_was_traced_is_shown_and_what_was_not_is_refused(fields: dict[str, Any]) -> None:
    found = trace(APPLE, **fields)
    shown = found._repr_html_()
    assert shown.startswith("<p>a &lt;red&gt; apple</p><figure><svg")
    assert shown.count("<svg") == 2  # words and ranking: a text encoder has no steps
    assert "apple*" in found.plot("words", caption="a <red> apple", title="")._repr_html_()
    with pytest.raises(PlanError, match="needs several windows of steps"):
        found.plot("timesteps")
    with pytest.raises(PlanError, match="no figure 'heatmap': there are network"):
        found.plot("heatmap")


def test_a_plan_that_is_wrong_and_a_unit_that_fails_end_it(fields: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match="sedes"):
        trace(APPLE, sedes=[1], **fields)
    with pytest.raises(PlanError, match="captions"):
        trace([], **fields)
    fields["numerics"] = Numerics(steps=2, noise_sigmas=1e38)
    with pytest.raises(TooManyFailures, match="1 of 1 units failed, the first by NotFinite"):
        trace(APPLE, **fields)
