"""Schedulers: rows that fork and join go where separate full runs of diffusers' object go."""

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.model.opening import check_model, count_steps, open_model
from engine.model.sampling import generate
from engine.model.schedulers import Rows, gathered, initial_sigma, readable, scheduler_named
from engine.model.seeds import derived_seed
from schemas.errors import PlanError
from schemas.numerics import Numerics
from tests.rounding import ROUNDING, assert_near, largest_difference

CONFIG = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
VARIANTS = {
    "pndm without Runge-Kutta": ("pndm", {"skip_prk_steps": True}),
    "pndm of velocities": ("pndm", {"prediction_type": "v_prediction"}),
    "dpm++ of order 3": ("dpm++", {"solver_order": 3}),
    "dpm++ with noise": ("dpm++", {"algorithm_type": "sde-dpmsolver++"}),
    "unipc of order 3": ("unipc", {"solver_order": 3}),
    "euler of velocities": ("euler", {"prediction_type": "v_prediction"}),
}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "shift": 3.0}
STEPS = 7
SEEDS = (11, 2**62)


def _cases() -> list[Any]:
    """Return name and config of each scheduler and variant, those of flows too."""
    return [
        *(pytest.param(name, FLOW, id=f"{name} of flows") for name in readable(FLOW)),
        *(pytest.param(name, CONFIG, id=name) for name in readable(CONFIG)),
        *(pytest.param(name, CONFIG | more, id=key) for key, (name, more) in VARIANTS.items()),
    ]


every_scheduler = pytest.mark.parametrize(("name", "config"), _cases())


def new(name: str, config: dict[str, Any]) -> Any:
    scheduler = scheduler_named(name, config)
    scheduler.set_timesteps(STEPS)
    return scheduler


def initial(seed: int) -> torch.Tensor:
    return torch.randn((1, 3, 4, 5), generator=torch.Generator().manual_seed(seed))


def prediction(x: torch.Tensor, taste: int, step: int) -> torch.Tensor:
    """Return what a network of that taste says of each row; rounding of `x` does not grow in it."""
    return torch.sin(x + taste) + 0.1 * taste - 0.05 * step


def full_run(name: str, config: dict[str, Any], seed: int, *, fork: int, taste: int) -> list[Any]:
    """Return one row's latents before and after every step; its taste is 0 until it forks."""
    scheduler = new(name, config)
    x = initial(seed) * initial_sigma(scheduler)
    history = [x]
    for step, t in enumerate(scheduler.timesteps):
        scaled = getattr(scheduler, "scale_model_input", lambda x, _: x)(x, t)
        said = prediction(scaled, taste if step >= fork else 0, step)
        options = {}
        if "generator" in inspect.signature(scheduler.step).parameters:
            noise_seed = derived_seed("scheduler noise", seed, step)
            options["generator"] = torch.Generator().manual_seed(noise_seed)
        x = scheduler.step(said, t, x, **options).prev_sample
        history.append(x)
    return history


def started(name: str, config: dict[str, Any]) -> Rows:
    scheduler = new(name, config)
    x = torch.cat([initial(seed) for seed in SEEDS]) * initial_sigma(scheduler)
    return Rows(x_RChw=x, scheduler=scheduler, seeds=SEEDS)


def advanced(rows: Rows, step: int, tastes: list[int]) -> Rows:
    x = rows.model_input(step)
    said = torch.cat([prediction(x[n : n + 1], taste, step) for n, taste in enumerate(tastes)])
    return rows.stepped(said, step)


def base_history(name: str, config: dict[str, Any]) -> list[Rows]:
    """Return two rows of taste 0 before and after every step."""
    history = [started(name, config)]
    for step in range(len(history[0].scheduler.timesteps)):
        history.append(advanced(history[-1], step, [0, 0]))
    return history


@every_scheduler
def test_forked_and_joined_rows_go_where_separate_runs_go(
    name: str, config: dict[str, Any]
) -> None:
    past = base_history(name, config)
    for row, seed in enumerate(SEEDS):
        alone = full_run(name, config, seed, fork=0, taste=0)
        for step, (rows, x) in enumerate(zip(past, alone, strict=True)):
            assert_near(rows.x_RChw[row], x[0], (row, step))
    rows, forks = None, []
    for step in range(len(past) - 1):
        # Row 1 forks twice and row 0 once, each time to a taste of its own.
        fresh = [1, 0, 1]
        parts = [] if rows is None else [(rows, range(len(rows)))]
        rows = gathered([*parts, (past[step], fresh)])
        forks += [(row, step, 1 + n + 3 * step) for n, row in enumerate(fresh)]
        rows = advanced(rows, step, [taste for _, _, taste in forks])
    assert rows is not None
    for (row, fork, taste), x in zip(forks, rows.x_RChw, strict=True):
        alone = full_run(name, config, SEEDS[row], fork=fork, taste=taste)
        assert_near(x, alone[-1][0], (row, fork))
        assert largest_difference(x, past[-1].x_RChw[row]) > 100 * ROUNDING


@every_scheduler
def test_rows_are_values(name: str, config: dict[str, Any]) -> None:
    past = base_history(name, config)
    for step, rows in enumerate(past[:-1]):
        for tastes in ([5, 6], [0, 0]):
            again = advanced(rows, step, tastes)
        assert torch.equal(again.x_RChw, past[step + 1].x_RChw)
    last = len(past) - 2
    for rows, step in ((past[1], 1), (past[last // 2], last // 2)):
        for later in range(step, last + 1):
            rows = advanced(rows, later, [0, 0])
        assert torch.equal(rows.x_RChw, past[-1].x_RChw)


@every_scheduler
def test_rows_can_be_left_out_and_put_in_another_order(name: str, config: dict[str, Any]) -> None:
    past = base_history(name, config)
    rows = gathered([(past[3], [1, 1, 0])])
    assert rows.seeds == (SEEDS[1], SEEDS[1], SEEDS[0])
    for step in range(3, len(past) - 1):
        rows = advanced(rows, step, [0, 0, 0])
        if step == 4:
            rows = gathered([(rows, [0]), (rows, [2, 0])])
    assert_near(rows.x_RChw, past[-1].x_RChw[[1, 0, 1]])


def test_noise_is_a_function_of_the_rows_seed_and_the_step() -> None:
    for name, is_noisy in (("ddpm", True), ("euler-a", True), ("lcm", True), ("ddim", False)):
        scheduler = new(name, CONFIG)
        x = initial(0).repeat(3, 1, 1, 1) * scheduler.init_noise_sigma
        rows = Rows(x_RChw=x, scheduler=scheduler, seeds=(1, 2, 1))
        after = advanced(rows, 0, [0, 0, 0]).x_RChw
        assert_near(after[0], after[2])
        apart = largest_difference(after[0], after[1])
        assert apart > 100 * ROUNDING if is_noisy else apart < ROUNDING


def test_a_scheduler_is_known_by_name_and_by_class_and_another_is_refused() -> None:
    assert type(scheduler_named("euler", CONFIG)) is type(
        scheduler_named("EulerDiscreteScheduler", CONFIG)
    )
    assert scheduler_named("ddpm", CONFIG).config.beta_end == CONFIG["beta_end"]
    with pytest.raises(PlanError, match=r"unknown scheduler 'eulr'.*ddim.*euler"):
        scheduler_named("eulr", CONFIG)


@pytest.mark.parametrize("kind", ["TCDScheduler", "LMSDiscreteScheduler", "EDMEulerScheduler"])
def test_an_own_scheduler_outside_the_list_is_refused_unless_another_is_asked_for(
    tiny_sd: Path, tmp_path: Path, kind: str
) -> None:
    folder = Path(shutil.copytree(tiny_sd, tmp_path / "model"))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"scheduler": ["diffusers", kind]}))
    match = f"its own scheduler {kind}, which dqf does not have: give --scheduler"
    with pytest.raises(PlanError, match=match):
        count_steps(str(folder), scheduler=None, steps=4)
    model = open_model(str(folder), device="cpu")
    with pytest.raises(PlanError, match=match):
        generate(model, ["a cat"], seeds=[0], numerics=Numerics(steps=1))
    assert count_steps(str(folder), scheduler="ddim", steps=4) == 4


@pytest.mark.parametrize(("steps", "most"), [(60, 50), (51, 50)])
def test_more_steps_than_a_scheduler_has_are_refused_with_how_many_there_are(
    tiny_families: dict[str, Path], steps: int, most: int
) -> None:
    name = str(tiny_families["lcm"])
    assert count_steps(name, scheduler=None, steps=most) == most
    match = rf"^steps {steps}: the model's scheduler LCMScheduler has at most {most}$"
    with pytest.raises(PlanError, match=match):
        count_steps(name, scheduler=None, steps=steps)
    model = open_model(name, device="cpu")
    with pytest.raises(PlanError, match=match):
        generate(model, ["a cat"], seeds=[0], numerics=Numerics(steps=steps))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"prediction_type": "velocity"}, "allows no step: prediction_type given as velocity"),
        ({"trained_betas": [0.1, 0.2]}, "allows no step: index 751 is out of bounds"),
        ({"beta_start": float("nan")}, "makes values that are not finite"),
        ({"timestep_spacing": "even"}, "steps 4: even is not supported"),
    ],
)
def test_a_scheduler_that_takes_no_step_is_refused_before_a_run(
    tiny_sd: Path, tmp_path: Path, settings: dict[str, Any], match: str
) -> None:
    folder = Path(shutil.copytree(tiny_sd, tmp_path / "model"))
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    with pytest.raises(PlanError, match=match):
        check_model(str(folder))
