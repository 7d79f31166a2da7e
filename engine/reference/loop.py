"""The parts that all training stages share: loop, optimizers, checkpoints, averaged weights."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.reference.phases import Phase

SAVE_EVERY = 100
"""Steps between checkpoints."""


def learning_rate(step: int, *, steps: int, peak: float, warmup: int = 100) -> float:
    """Return the learning rate of a step: a linear warm-up, then a cosine down to 2 % of `peak`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give all parameter groups the same learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def orthogonal(matrix_MN: torch.Tensor) -> torch.Tensor:
    """Return the matrix with its singular values moved near 1 (Jordan et al. 2024, "Muon").

    Five steps X <- (a + b X X' + c (X X')^2) X. All of them are polynomials in the first Gram
    matrix, so only that small square is iterated on.
    """
    tall = matrix_MN.shape[0] > matrix_MN.shape[1]
    wide_MN = matrix_MN.T if tall else matrix_MN
    wide_MN = wide_MN / (wide_MN.norm() + 1e-8)
    gram_MM = wide_MN @ wide_MN.T
    factor_MM = torch.eye(len(gram_MM))
    for _ in range(5):
        now_MM = factor_MM @ factor_MM @ gram_MM
        step_MM = torch.addmm(now_MM, now_MM, now_MM, beta=-4.7750, alpha=2.0315)
        factor_MM = torch.addmm(factor_MM, step_MM, factor_MM, beta=3.4445)
    return (factor_MM @ wide_MN).T if tall else factor_MM @ wide_MN


class Muon(torch.optim.Optimizer):
    """Muon on matrices and kernels (flattened); torch's own takes no kernels and runs in bfloat16.

    A step has the size of AdamW's at the same learning rate (Liu et al. 2025, "Muon is scalable").
    """

    def __init__(self, parameters: Sequence[torch.Tensor], *, decay: float = 0.01) -> None:
        super().__init__(parameters, {"lr": 1e-3, "decay": decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Do one step: Nesterov momentum 0.95, orthogonalized, with decayed weights."""
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                momentum = state.setdefault("momentum", torch.zeros_like(weight))
                momentum.lerp_(weight.grad, 0.05)
                moved = orthogonal(weight.grad.lerp(momentum, 0.95).flatten(1))
                weight.mul_(1 - group["lr"] * group["decay"])
                size = 0.2 * max(moved.shape) ** 0.5
                weight.add_(moved.view_as(weight), alpha=-group["lr"] * size)


def adamw(model: nn.Module, *, decay: float = 0.01) -> torch.optim.AdamW:
    """Return AdamW that decays matrices and kernels, but not biases, norms or scales."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)


def muon_and_adamw(
    model: nn.Module, *, outer: tuple[str, ...]
) -> tuple[torch.optim.Optimizer, ...]:
    """Return Muon for matrices and kernels outside the modules `outer`, and AdamW for the rest."""
    inner = {
        name: p for name, p in model.named_parameters() if p.ndim > 1 and not name.startswith(outer)
    }
    rest = [p for name, p in model.named_parameters() if name not in inner]
    adam = torch.optim.AdamW(rest, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    return Muon(list(inner.values())), adam


class Average:
    """Exponential moving average of a model's weights, warmed up over its first steps."""

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.weights = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, *, step: int) -> None:
        """Move the average toward the model's present weights."""
        keep = min(self.decay, (1 + step) / (10 + step))
        state = model.state_dict()
        ours = [v for v in self.weights.values() if v.is_floating_point()]
        theirs = [state[k] for k, v in self.weights.items() if v.is_floating_point()]
        torch._foreach_lerp_(ours, theirs, 1 - keep)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that a kill leaves the old one or the new one, never half of one."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def load(path: Path) -> dict[str, Any]:
    """Return a checkpoint, or an empty dict where there is none."""
    return torch.load(path, weights_only=True) if path.exists() else {}


class Progress:
    """Prints step, mean loss and speed to stderr, every `every` steps."""

    def __init__(self, name: str, *, steps: int, every: int = 50) -> None:
        self.name, self.steps, self.every = name, steps, every
        self.total, self.count, self.since = 0.0, 0, time.monotonic()

    def __call__(self, step: int, loss: float, *, samples: int) -> None:
        """Take one step's loss; print when a line is due."""
        self.total, self.count = self.total + loss, self.count + 1
        if (step + 1) % self.every and step + 1 != self.steps:
            return
        seconds = time.monotonic() - self.since
        speed = samples * self.count / seconds
        line = f"{self.name} {step + 1}/{self.steps} loss {self.total / self.count:.4f}"
        print(f"{line} {speed:.0f} samples/s", file=sys.stderr, flush=True)
        self.total, self.count, self.since = 0.0, 0, time.monotonic()


def multiplies_in_bfloat16() -> bool:
    """Return whether the processor has instructions for bfloat16; without them it is slower."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16", False) or able.get("amx_bf16", False))


def train(
    phase: Phase,
    model: nn.Module,
    loss_of: Callable[[torch.Generator], torch.Tensor],
    *,
    work: Path,
    batch: int,
    decay: float,
    warmup: int = 100,
    optimizers: Sequence[torch.optim.Optimizer] = (),
) -> None:
    """Train `model` in one phase, from the phase's checkpoint in `work` if there is one; it ends
    with averaged weights.

    Step n draws everything from a generator of its own, so a resumed run equals an unbroken one.
    Losses are computed under bfloat16 autocast where the processor has instructions for it.
    """
    mixed = torch.autocast("cpu", dtype=torch.bfloat16, enabled=multiplies_in_bfloat16())
    optimizers, steps = optimizers or (adamw(model),), phase.steps
    average, path = Average(model, decay=decay), work / f"{phase.name}.pt"
    first = resume(path, model, optimizers, average)
    progress = Progress(phase.name, steps=steps)
    for step in range(first, steps):
        with mixed:
            loss = loss_of(torch.Generator().manual_seed(phase.seed * 1_000_003 + step))
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        step_rate = learning_rate(step, steps=steps, peak=phase.rate, warmup=warmup)
        for optimizer in optimizers:
            set_rate(optimizer, step_rate)
            optimizer.step()
        average.update(model, step=step)
        progress(step, loss.item(), samples=batch)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            kept = [optimizer.state_dict() for optimizer in optimizers]
            weights = {"model": model.state_dict(), "average": average.weights}
            save(path, {"step": step + 1, "optimizers": kept, **weights})
    model.load_state_dict(average.weights)


def resume(
    path: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], average: Average
) -> int:
    """Load the checkpoint if there is one; return the next step."""
    state = load(path)
    if not state:
        return 0
    model.load_state_dict(state["model"])
    for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(kept)
    average.weights = state["average"]
    return state["step"]
