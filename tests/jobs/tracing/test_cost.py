"""A plan's cost is what its run then does."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.model import sampling
from engine.model.hooks import count_rows
from engine.model.opening import open_model
from engine.tracing import lockstep
from jobs.query.select import run_query
from jobs.runs.run import IdentifiedUnit, Task
from jobs.tracing.cost import Cost, device_time, plan_cost, refuse_too_large
from jobs.tracing.plan import check_plan, make_plan
from jobs.tracing.trace import prepare_run
from jobs.tracing.tracer import ModelTracer, TraceWorker
from schemas.errors import PlanError
from tests.covering import slow

CAPTIONS = [
    {"caption": "a red apple by the sea", "subject": "apple", "attribute": "object"},
    {"caption": "a ship", "subject": "ship", "attribute": "object"},
]
SMALL = {"guidance": 3.5, "height": 16, "width": 16}


@pytest.mark.parametrize(
    "change",
    [
        slow({"windows": ["each", "2:3", "all"], "parts": ["denoiser"]}),
        slow(
            {
                "parts": ["denoiser"],
                "interventions": ["restore", "swap", "zero", "other-seed"],
                "numerics": {"steps": 3, "cfg_patch": "both"},
            }
        ),
        {"parts": ["text-encoder"], "tokens": ["each", "eos", "subject"]},
        {
            "sets": {
                "late": ["unet.mid_block.resnets.0@1:3", "unet.down_blocks.1.resnets.0@2:3"],
                "late-too": ["unet.mid_block.resnets.1@1:3"],
                "late-three": ["unet.up_blocks.0.resnets.0@1:2"],
                "both": ["unet.mid_block.resnets.0", "text_encoder.layers.0.mlp@eos"],
            },
            "interventions": ["restore", "corrupt", "zero"],
        },
    ],
    ids=["windows", "interventions", "tokens", "sets"],
)
def test_cost_is_what_a_run_does(
    tmp_path: Path,
    tiny_sd: Path,
    tiny_scorer: Path,
    change: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fields = {
        "model": str(tiny_sd),
        "scorer": str(tiny_scorer),
        "captions": CAPTIONS,
        "numerics": {"steps": 3},
        **change,
    }
    cost, evaluated = cost_and_evaluations(fields, tmp_path / "run", monkeypatch)
    # Donor rows come on top, equal texts are one.
    if "tokens" in change:
        assert sum(evaluated) / 2 <= cost.row_evaluations
    else:
        assert sum(evaluated) / 2 == pytest.approx(cost.row_evaluations, rel=0.1)


@pytest.mark.parametrize(
    "change",
    [
        {"windows": ["each", "all"], "parts": ["denoiser"], "kinds": ["joint_attn"]},
        {
            "components": ["text_encoder.layers.0.mlp", "text_encoder_2.layers.0.mlp"],
            "parts": ["text-encoder"],
            "tokens": ["words", "eos"],
            "numerics": {**SMALL, "steps": 1},
        },
    ],
    ids=["denoiser", "tokens of two encoders"],
)
def test_a_model_that_embeds_guidance_has_no_other_half(
    tmp_path: Path,
    tiny_flux: Path,
    tiny_scorer: Path,
    change: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fields = {"model": str(tiny_flux), "scorer": str(tiny_scorer), "captions": CAPTIONS}
    cost, evaluated = cost_and_evaluations(
        {**fields, "numerics": {**SMALL, "steps": 3}, **change}, tmp_path / "run", monkeypatch
    )
    if "tokens" in change:
        assert sum(evaluated) <= cost.row_evaluations
    else:
        assert sum(evaluated) == pytest.approx(cost.row_evaluations, rel=0.1)


def cost_and_evaluations(
    fields: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Cost, list[int]]:
    """Return the cost of a plan, which is that of its run, and the rows of every evaluation."""
    planned = check_plan(make_plan(fields))
    cost = plan_cost(planned)
    evaluated: list[int] = []
    denoiser_output = sampling.denoiser_output

    def counting(model: Any, x: Any, *rest: Any) -> Any:
        evaluated.append(len(x))
        return denoiser_output(model, x, *rest)

    monkeypatch.setattr(sampling, "denoiser_output", counting)
    monkeypatch.setattr(lockstep, "denoiser_output", counting)
    run = prepare_run(folder, planned)
    worker = TraceWorker(run.location, rows=64, threads=1)
    done = [worker.run(Task(chunk=chunk)) for chunk in range(run.num_chunks)]
    assert not sum(part.failed for part in done)
    rows = run_query(run, "SELECT * FROM scores")
    assert cost.units == len(run.units)
    assert cost.scores == len(rows) == cost.patched_runs * len(planned.plan.measures)
    size = sum(part.stat().st_size for part in Path(run.location, "parts").glob("c*"))
    assert size == pytest.approx(cost.bytes, rel=0.7)
    return cost, evaluated


def test_time_is_measured(tiny_sd: Path) -> None:
    planned = check_plan(make_plan({"model": str(tiny_sd), "captions": CAPTIONS}))
    cost = plan_cost(planned)
    time = device_time(planned, cost)
    assert time.rows >= 2
    assert time.hours == pytest.approx(cost.row_evaluations * time.row_seconds / 3600)
    assert time.row_seconds > 0


def test_the_memory_of_both_phases_is_that_of_the_opened_parts(tiny_flux: Path) -> None:
    numerics = {"dtype": "float16", "height": 16, "width": 16}
    planned = check_plan(
        make_plan({"model": str(tiny_flux), "captions": CAPTIONS, "numerics": numerics})
    )
    cost = plan_cost(planned)
    model = open_model(str(tiny_flux), dtype="float16", device="cpu")
    assert cost.text_weight_bytes == sum(held(encoder.module) for encoder in model.encoders)
    assert cost.denoiser_weight_bytes == held(model.denoiser) + held(model.vae)


def held(network: Any) -> int:
    """Return the bytes of a network's weights; positions that it computes are counted alike."""
    dtype = next(network.parameters()).dtype
    return sum(tensor.numel() for tensor in network.state_dict().values()) * dtype.itemsize


TOO_LITTLE = "weights of the {} take 0.0 GB and this {} has 0.0 GB: give --dtype bfloat16"


def test_too_little_memory_is_one_sentence(tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = check_plan(make_plan({"model": str(tiny_sd), "captions": CAPTIONS}))
    cost = plan_cost(planned)
    largest = max(cost.text_weight_bytes, cost.denoiser_weight_bytes)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=largest))
    both = TOO_LITTLE.format("text encoders and denoiser", "machine")
    with pytest.raises(PlanError, match=both):
        device_time(planned, cost)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (0, largest))
    refuse_too_large(planned.plan)
    with pytest.raises(PlanError, match=both.replace("machine", "GPU")):
        refuse_too_large(planned.plan, offload=False)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (0, largest - 1))
    with pytest.raises(PlanError, match=TOO_LITTLE.format("denoiser", "GPU")):
        refuse_too_large(planned.plan)


@pytest.mark.parametrize(
    "change",
    [
        {"parts": ["denoiser"], "windows": ["each"], "interventions": ["restore", "zero"]},
        {"parts": ["text-encoder"], "tokens": ["words"]},
    ],
    ids=["denoiser", "text encoder"],
)
def test_the_cost_of_a_screen_counts_backward_passes(
    tmp_path: Path, tiny_sd: Path, tiny_scorer: Path, change: dict[str, Any]
) -> None:
    """A row that is evaluated with a graph passes backwards once per measure, and counts two."""
    fields = {"model": str(tiny_sd), "scorer": str(tiny_scorer), "captions": CAPTIONS}
    planned = check_plan(
        make_plan({**fields, "numerics": {"steps": 3}, "screen": "attribution", **change})
    )
    cost, rows = plan_cost(planned), list[float]()
    run = prepare_run(tmp_path / "run", planned)
    tracer = ModelTracer(run, rows=64, threads=1, offload=False)

    def counted(count: int) -> None:
        passes = 2 * len(planned.plan.measures) if torch.is_grad_enabled() else 0
        rows.append(count * (1 + passes) / 2)

    with count_rows(tracer._model.denoiser, counted):
        scored = [
            tracer.score_rows(IdentifiedUnit(unit_id=unit_id, unit=unit))
            for unit_id, unit in zip(run.unit_ids, run.units, strict=True)
        ]
    assert sum(rows) == cost.row_evaluations
    assert sum(map(len, scored)) == cost.scores


def test_seeds_draws_and_noises_multiply_a_cost_and_are_not_counted_one_by_one(
    tiny_sd: Path, tiny_scorer: Path
) -> None:
    fields = {"model": str(tiny_sd), "scorer": str(tiny_scorer), "captions": CAPTIONS}
    one = plan_cost(check_plan(make_plan(fields)))
    numerics = {"noise_sigmas": [1.0, 3.0]}
    many = {**fields, "numerics": numerics, "seeds": [3, 4, 5], "noise_draws": 1_000_000}
    all_of_them = plan_cost(check_plan(make_plan(many)))
    for name in ("units", "patched_runs", "row_evaluations", "scores"):
        assert getattr(all_of_them, name) == 6_000_000 * getattr(one, name)
