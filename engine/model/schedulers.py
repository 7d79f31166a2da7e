"""Schedulers by name, and their state row by row, so that a row can fork from a trajectory.

A multistep scheduler keeps earlier predictions in tensors of the latents' shape, one entry per row;
forking copies the entries of the rows that fork.

Shapes: R rows, C channels, h x w latent.
"""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import diffusers
import torch

from engine.model.seeds import derived_seed
from schemas.errors import PlanError, first_line

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "pndm": "PNDMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "lcm": "LCMScheduler",
    "flow-euler": "FlowMatchEulerDiscreteScheduler",
    "flow-heun": "FlowMatchHeunDiscreteScheduler",
    "flow-lcm": "FlowMatchLCMScheduler",
    "scm": "SCMScheduler",
}
"""diffusers classes by name; tests show that forked rows equal separate runs, to rounding."""
FLOW = frozenset(name for name in SCHEDULERS if name.startswith("flow-"))
"""Schedulers of models that were trained by flow matching (Lipman et al. 2023)."""
TRIAL_STEPS = 4
"""Steps that every scheduler has: PNDM with Runge-Kutta steps takes no fewer."""
ANY_TOKENS = 1024
"""Tokens of an image for which steps are counted."""
TRIAL_TOKENS = 64
"""Tokens of a small image, for which schedules are shifted least."""
TRIGONOMETRIC = "scm"
"""The scheduler of continuous-time consistency models (Lu and Song 2024)."""


def _trained_as(config: Mapping[str, Any]) -> str:
    """Return the quantity that a model predicts, by its scheduler's config: noise, flow or scm."""
    if config.get("prediction_type") == "trigflow":
        return "scm"
    is_flow = "shift" in config or config.get("use_flow_sigmas")
    return "flow" if is_flow or config.get("prediction_type") == "flow_prediction" else "noise"


def readable(config: Mapping[str, Any]) -> list[str]:
    """Return the schedulers that fit what a model predicts, by the config of its own scheduler."""
    trained = _trained_as(config)
    return [name for name in SCHEDULERS if _reads(name, trained)]


def _reads(name: str, trained: str) -> bool:
    if trained == "flow":
        return name in FLOW or "use_flow_sigmas" in _settings_of(SCHEDULERS[name])
    return (name == TRIGONOMETRIC) == (trained == "scm") and name not in FLOW


def _settings_of(class_name: str) -> Mapping[str, Any]:
    return inspect.signature(getattr(diffusers, class_name).__init__).parameters


def _fitting(class_name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a config that the scheduler of that class has.

    PlanError: its model predicts another quantity than the scheduler reads.
    """
    short = next(name for name, known in SCHEDULERS.items() if known == class_name)
    fit = readable(config)
    if short not in fit:
        raise PlanError(
            f"scheduler {short!r} does not read what this model predicts: give one of "
            f"{', '.join(fit)}"
        )
    known, fitting = _settings_of(class_name), dict(config)
    if _trained_as(config) == "flow" and short not in FLOW:
        fitting |= {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
        fitting.setdefault("flow_shift", config.get("shift", 1.0))
    # diffusers keeps settings of another class, as of a learned variance that this one cannot read.
    return {name: v for name, v in fitting.items() if name in known or name.startswith("_")}


def scheduler_named(name: str, config: Mapping[str, Any]) -> Any:
    """Return the scheduler with that name or class and the noise schedule of `config`.

    PlanError: it is not one of `SCHEDULERS`.
    """
    class_name = SCHEDULERS.get(name, name)
    if class_name not in SCHEDULERS.values():
        raise PlanError(f"unknown scheduler {name!r}: there are {', '.join(SCHEDULERS)}")
    kind = getattr(diffusers, class_name)
    settings = _fitting(class_name, config)
    if class_name == "PNDMScheduler":
        # As in every Stable Diffusion pipeline, unless the config is PNDM's own and says otherwise.
        settings.setdefault("skip_prk_steps", True)
    return kind.from_config(settings)


def own_scheduler(scheduler: Any, model: str) -> Any:
    """Return a model's own scheduler; PlanError if it is not one of `SCHEDULERS`.

    For other schedulers it is untested whether rows can fork, and what else the pipeline passes to
    their steps.
    """
    name = type(scheduler).__name__
    if name not in SCHEDULERS.values():
        raise PlanError(
            f"model {model!r} draws with its own scheduler {name}, which dqf does not have: give "
            f"--scheduler, one of {', '.join(SCHEDULERS)}, where a command has it, or name another "
            "in the folder's scheduler_config.json"
        )
    return scheduler


def set_steps(
    scheduler: Any,
    steps: int,
    *,
    device: torch.device | str = "cpu",
    schedule: Mapping[str, Any] | None = None,
) -> None:
    """Set a scheduler to `steps`; PlanError if it has fewer, or cannot take the `schedule` that the
    model's pipeline gives it."""
    options = dict(schedule or {})
    unknown = set(options) - set(inspect.signature(scheduler.set_timesteps).parameters)
    if unknown:
        raise PlanError(
            f"scheduler {type(scheduler).__name__} does not read {' or '.join(sorted(unknown))}, "
            "which the model's pipeline gives it: give --scheduler flow-euler or flow-lcm"
        )
    if _is_scm(scheduler) and steps != 2:
        options["intermediate_timesteps"] = None  # read for two steps alone
    try:
        scheduler.set_timesteps(steps, device=device, **options)
    except ValueError as error:
        config = scheduler.config
        most = config.get("original_inference_steps") or config.num_train_timesteps
        raise PlanError(
            f"steps {steps}: the model's scheduler {type(scheduler).__name__} has at most {most}"
            if steps > most
            else f"steps {steps}: {first_line(error)}"
        ) from error
    # diffusers counts `steps_offset` beyond the steps that the model was trained on.
    trained, last = scheduler.config.num_train_timesteps, int(max(scheduler.timesteps))
    if hasattr(scheduler, "alphas_cumprod") and last >= trained:
        raise PlanError(f"steps {steps}: {type(scheduler).__name__} has no such step: give fewer")


def check_scheduler(
    scheduler: Any,
    schedule: Callable[..., Mapping[str, Any]],
    *,
    latent: int,
    predicted: int,
    scaling: frozenset[str],
) -> None:
    """Raise PlanError if a model's own scheduler cannot take TRIAL_STEPS, the result is not
    finite, or it scales latents where the model's pipeline does not.

    `schedule` and `scaling` are the family's; the denoiser predicts `predicted` channels of
    `latent` ones.
    """
    if type(scheduler).__name__ not in SCHEDULERS.values():
        return  # the user is to give another
    try:
        set_steps(
            scheduler,
            TRIAL_STEPS,
            schedule=schedule(scheduler, steps=TRIAL_STEPS, tokens=TRIAL_TOKENS),
        )
        rows = Rows(x_RChw=torch.ones(1, latent, 2, 2), scheduler=scheduler, seeds=(0,))
        _check_scaling(rows, scaling)
        for step in range(len(evaluated(scheduler))):
            rows.model_input(step)
            rows = rows.stepped(rows.read(torch.zeros(1, predicted, 2, 2)), step)
    except PlanError:
        raise
    except Exception as error:  # a bad config can make a library raise anything
        why = first_line(error)
        raise PlanError(f"the model's scheduler_config.json allows no step: {why}") from error
    if not rows.x_RChw.isfinite().all():
        raise PlanError("the model's scheduler_config.json makes values that are not finite")


def _check_scaling(rows: "Rows", scaling: frozenset[str]) -> None:
    """Raise PlanError if a scheduler scales latents in a way that the model's pipeline leaves
    out."""
    scheduler = rows.scheduler
    used = {
        "init_noise_sigma": getattr(scheduler, "init_noise_sigma", 1.0) != 1.0,
        "scale_model_input": not torch.equal(rows.model_input(0), rows.x_RChw),
    }
    for name, is_used in used.items():
        if is_used and name not in scaling:
            raise PlanError(
                f"the model's scheduler {type(scheduler).__name__} scales latents ({name}), which "
                "the model's pipeline does not: name another in its model_index.json"
            )


def _is_scm(scheduler: Any) -> bool:
    return type(scheduler).__name__ == SCHEDULERS[TRIGONOMETRIC]


def evaluated(scheduler: Any) -> torch.Tensor:
    """Return the timesteps at which the denoiser runs; `scm` keeps the end besides."""
    return scheduler.timesteps[:-1] if _is_scm(scheduler) else scheduler.timesteps


def initial_sigma(scheduler: Any) -> float:
    """Return the standard deviation of the first latent; flow matching begins with 1."""
    if _is_scm(scheduler):
        return scheduler.config.sigma_data  # as SANA-Sprint's pipeline scales it
    return getattr(scheduler, "init_noise_sigma", 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows before one denoising step: their latents and the scheduler's state of each.

    Immutable: `stepped` and `gathered` return new rows.
    """

    x_RChw: torch.Tensor
    """Latents, float32."""
    scheduler: Any
    seeds: tuple[int, ...]
    """Seed of each row, from which a stochastic scheduler draws."""

    def __len__(self) -> int:
        return len(self.seeds)

    def model_input(self, step: int) -> torch.Tensor:
        """Return the latents as the denoiser reads them at a step."""
        scale = getattr(self.scheduler, "scale_model_input", None)  # flow matching has none
        return self.x_RChw if scale is None else scale(self.x_RChw, evaluated(self.scheduler)[step])

    def read(self, prediction: torch.Tensor) -> torch.Tensor:
        """Return a prediction without a variance that the scheduler does not read."""
        if "learned" in str(self.scheduler.config.get("variance_type")):
            return prediction
        return prediction[:, : self.x_RChw.shape[1]]

    def stepped(self, prediction: torch.Tensor, step: int) -> "Rows":
        """Return the rows after a step, given the denoiser's guided prediction of each.

        A stochastic scheduler's noise is a function of a row's seed and of the step alone, so that
        rows of equal seed share it wherever they forked.
        """
        scheduler = _copied(self.scheduler)
        options: dict[str, Any] = {}
        if _draws_noise(type(scheduler)):
            options["generator"] = [
                torch.Generator().manual_seed(derived_seed("scheduler noise", seed, step))
                for seed in self.seeds
            ]
        t = scheduler.timesteps[step]
        x_RChw = scheduler.step(prediction, t, self.x_RChw, **options, return_dict=False)[0]
        return Rows(x_RChw=x_RChw, scheduler=scheduler, seeds=self.seeds)

    def mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Rows":
        """Return the rows with the latents, then every tensor of the scheduler's state of each row,
        replaced by `change(tensor)`; equal rows have these tensors in the same order."""
        x_RChw, scheduler = change(self.x_RChw), copy.copy(self.scheduler)
        for name, value in vars(self.scheduler).items():
            setattr(scheduler, name, _mapped_value(value, self.x_RChw.shape, change))
        return Rows(x_RChw=x_RChw, scheduler=scheduler, seeds=self.seeds)


def _mapped_value(
    value: Any, shape: torch.Size, change: Callable[[torch.Tensor], torch.Tensor]
) -> Any:
    if isinstance(value, list):
        return [_mapped_value(item, shape, change) for item in value]
    return change(value) if isinstance(value, torch.Tensor) and value.shape == shape else value


def gathered(parts: Sequence[tuple[Rows, Sequence[int]]]) -> Rows:
    """Return the chosen rows of each part, one after another; all precede the same step."""
    scheduler = copy.copy(parts[0][0].scheduler)
    for name in vars(scheduler):
        held = [vars(rows.scheduler)[name] for rows, _ in parts]
        setattr(scheduler, name, _gathered_value(held, parts))
    return Rows(
        x_RChw=torch.cat([rows.x_RChw[list(chosen)] for rows, chosen in parts]),
        scheduler=scheduler,
        seeds=tuple(rows.seeds[row] for rows, chosen in parts for row in chosen),
    )


def _gathered_value(held: Sequence[Any], parts: Sequence[tuple[Rows, Sequence[int]]]) -> Any:
    first = held[0]
    if isinstance(first, list):
        return [_gathered_value(items, parts) for items in zip(*held, strict=True)]
    if isinstance(first, torch.Tensor) and first.shape == parts[0][0].x_RChw.shape:
        return torch.cat([h[list(chosen)] for h, (_, chosen) in zip(held, parts, strict=True)])
    return first


@cache
def _draws_noise(scheduler_class: type) -> bool:
    return "generator" in inspect.signature(scheduler_class.step).parameters  # pyright: ignore


def _copied(scheduler: Any) -> Any:
    """Return a copy of a scheduler that can step without changing the original.

    Schedulers append to their lists, and PNDM adds to a tensor in place; tensors in lists are only
    read.
    """
    fresh = copy.copy(scheduler)
    for name, value in vars(scheduler).items():
        if isinstance(value, list):
            setattr(fresh, name, list(value))
        elif isinstance(value, torch.Tensor):
            setattr(fresh, name, value.clone())
    return fresh
