"""Lockstep tracing against the per-component loop as published, in one run on one machine.

The published loop samples one batch [clean, corrupted, restored] for every component: 3 N rows
where N + 2 are needed, so 3 N / (N + 2) is the most that the arithmetic allows. Both sides use the
same sampler and hooks and give the same images, which is checked.

    python -m bench.tracing [--model emoji-sd] [--part unet] [--steps 20] [--rows 24]
"""

import argparse
import time
from collections.abc import Callable

import torch

from engine import registry
from engine.components import list_components
from engine.models import Diffusion, open_model
from engine.tracing import run_rows
from jobs.probes import probe_set
from schemas.component import Part
from schemas.plan import Numerics, Unit


def main() -> None:
    """Print wall times, row evaluations and their ratios."""
    options = _options()
    model = open_model(options.model)
    numerics = Numerics(
        steps=options.steps or registry.default_steps(options.model),
        guidance=registry.default_guidance(options.model),
    )
    unit = _unit(model, Part(options.part))
    names = unit.components
    run_rows(model, unit, [()], numerics=numerics, rows=2)  # warm up
    lockstep_s, ours = _timed(lambda: _lockstep(model, unit, numerics, options.rows))
    published_s, theirs = _timed(lambda: _published(model, unit, numerics))
    num_batches = -(-(len(names) + 1) // (options.rows - 1))
    num_rows = len(names) + 1 + num_batches
    print(f"model {options.model}, {len(names)} components of the {options.part}, ", end="")
    print(f"{numerics.steps} steps, {torch.get_num_threads()} threads")
    print(f"published loop  {published_s:7.2f} s  {3 * len(names):4d} rows")
    print(f"lockstep        {lockstep_s:7.2f} s  {num_rows:4d} rows")
    print(
        f"ratio {published_s / lockstep_s:.2f} of at most {3 * len(names) / (len(names) + 2):.2f}"
    )
    print(f"largest difference of a pixel {float((ours - theirs).abs().max()):.1e}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="emoji-sd")
    parser.add_argument("--part", default="unet", choices=[part.value for part in Part])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rows", type=int, default=24)
    return parser.parse_args()


def _unit(model: Diffusion, part: Part) -> Unit:
    names = tuple(c.name for c in list_components(model) if c.part is part)
    caption = probe_set("emoji-sd")[0]
    return Unit(caption=caption, seed=0, draw=0, part=part, components=names)


def _lockstep(model: Diffusion, unit: Unit, numerics: Numerics, rows: int) -> torch.Tensor:
    restores = [(), *((name,) for name in unit.components)]
    return run_rows(model, unit, restores, numerics=numerics, rows=rows)[2:]


def _published(model: Diffusion, unit: Unit, numerics: Numerics) -> torch.Tensor:
    restored = [
        run_rows(model, unit, [(), (name,)], numerics=numerics, rows=3)[2]
        for name in unit.components
    ]
    return torch.stack(restored)


def _timed(work: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    start_s = time.perf_counter()
    result = work()
    return time.perf_counter() - start_s, result


if __name__ == "__main__":
    main()
