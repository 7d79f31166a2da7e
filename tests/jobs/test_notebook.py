"""A few captions traced without Ray: what is kept, what is shown, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dqf
from jobs.notebook import Trace, trace, trace_caption
from jobs.query.results import rank
from jobs.runs.progress import Progress
from jobs.runs.trace_run import TraceRun
from schemas.caption import Caption
from schemas.component import Part
from schemas.errors import DqfError, PlanError, StoreError, TooManyFailures
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


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rows": 1}, "rows: .* greater than or equal to 2"),
        ({"run": ""}, "give a run's folder"),
        ({"run": 5}, "give a run's folder"),
        ({"windows": ["each"]}, "windows are of the denoiser, which is not traced"),
        ({"numerics": {"noise_at": "output"}}, "noise_at 'output' is of the denoiser"),
        ({"tokens": ["last_subject"], "interventions": ["mean"]}, "needs other captions"),
        ({"model": 5}, "give the model's name"),
    ],
)
def test_what_a_trace_would_ignore_is_refused(
    given: dict[str, Any], said: str, fields: dict[str, Any]
) -> None:
    with pytest.raises(DqfError, match=said):
        trace(APPLE, **{**fields, **given})


@pytest.fixture(scope="module")
def opened(tiny_sd: Path, tiny_scorer: Path) -> tuple[Any, Any]:
    return dqf.open_model(tiny_sd, device="cpu"), dqf.open_scorer(tiny_scorer)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "emoji-sd"}, "give an opened model"),
        ({"scorer": "emoji-sd"}, "give an opened scorer"),
        ({"numerics": {"steps": 2}}, "give the settings"),
        ({"numerics": Numerics(steps=2, dtype="float16")}, "opened in float32"),
        ({"numerics": Numerics(steps=2, noise_sigmas=(1, 3))}, "several values: give one"),
        ({"numerics": Numerics(steps=1000)}, "steps 1000: DDIMScheduler has no such step"),
        ({"numerics": Numerics(steps=2, path="pooled")}, "reads no pooled embedding"),
        ({"part": "nope"}, "parts"),
        ({"kinds": []}, "kinds"),
        ({"seed": -1}, "seeds"),
        ({"rows": 0}, "rows"),
        ({"tokens": ["nope"]}, "tokens"),
        ({"windows": ["each"]}, "windows are of the denoiser"),
        ({"references": ["a blue dog"]}, "references are read by"),
        ({"interventions": ["mean"], "references": ["a blue dog " * 30]}, "reference .* tokens"),
        ({"caption": APPLE.model_copy(update={"target": "apple " * 60})}, "scorer reads"),
    ],
)
def test_a_caption_is_traced_by_the_rules_of_a_plan(
    given: dict[str, Any], said: str, opened: tuple[Any, Any]
) -> None:
    fields: dict[str, Any] = {"part": Part.TEXT_ENCODER, "numerics": Numerics(steps=2)}
    fields |= {"model": opened[0], "scorer": opened[1], "caption": APPLE, **given}
    with pytest.raises(DqfError, match=said):
        trace_caption(fields.pop("model"), fields.pop("scorer"), fields.pop("caption"), **fields)


def test_a_part_is_the_same_by_its_name(opened: tuple[Any, Any]) -> None:
    by_name: Any = "text-encoder"
    numerics = Numerics(steps=2)
    tables = [
        trace_caption(*opened, APPLE, part=part, numerics=numerics)
        for part in (Part.TEXT_ENCODER, by_name)
    ]
    assert tables[0].num_rows
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize(
    "choice", [{"nope": 1}, {"top": 0}, {"top": -3}, {"width": -5}, {"attributes": "object"}]
)
def test_a_choice_that_a_figure_cannot_have_is_refused(
    choice: dict[str, Any], traced_run: TraceRun
) -> None:
    with pytest.raises(PlanError, match=next(iter(choice))):
        Trace(run=traced_run, folder=None).plot("ranking", **choice)


API: Any = dqf
"""The public names as untyped code calls them."""


@pytest.mark.parametrize(
    "call",
    [
        lambda run: API.open_model("emoji-sd", dtype="float31"),
        lambda run: API.open_model("emoji-sd", device="gpu"),
        lambda run: API.open_model("emoji-sd", device="meta"),
        lambda run: API.open_model(5),
        lambda run: API.open_scorer("builtin:emoji-sd", device="tpu"),
        lambda run: API.open_run(None),
        lambda run: API.open_run(b"run"),
        lambda run: API.rank("runs/demo"),
        lambda run: API.rank(run, attribute=["object"]),
        lambda run: API.effects("runs/demo"),
        lambda run: API.query("runs/demo", "SELECT 1"),
        lambda run: API.query(run, 5),
        lambda run: API.query([run], "SELECT 1"),
        lambda run: API.query({1: run}, "SELECT 1"),
        lambda run: API.query({"": run}, "SELECT 1"),
        lambda run: API.Cluster(actors=0),
        lambda run: API.Cluster(gpus_an_actor=float("nan")),
        lambda run: API.Cluster(address=""),
        lambda run: API.run_edit((), None, note=print),
        lambda run: API.prepare_evaluation(None, Path("x")),
    ],
)
def test_arguments_of_other_types_are_one_sentence(
    call: Callable[[Any], object], traced_run: TraceRun
) -> None:
    with pytest.raises(DqfError) as raised:
        call(traced_run)
    assert 0 < len(str(raised.value)) < 1000
    assert "\n" not in str(raised.value)
