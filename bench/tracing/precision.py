"""bfloat16 compared with float32: seconds per UNet row, and agreement of the components' ranking.

The indirect effect of a component is the score of the restored run minus that of the corrupted one.
Printed are Spearman's rank correlations, between the two precisions, of the indirect effects over
components: of each caption, and of the effects averaged over the captions; and, to judge them by,
the correlation between a half of the captions and the other in float32.

    python -m bench.tracing.precision [--captions 8] [--steps 20] [--measure target]
"""

import argparse
import statistics
from typing import Any

import torch
from scipy.stats import spearmanr

from bench.models import SCORER, add_options, make_unit, numerics_of, open_named
from bench.tracing.clock import timed
from engine.model.model import Diffusion
from engine.model.sampling import denoiser_output, encode
from engine.model.scorer import open_scorer
from engine.tracing.trace_unit import trace_unit
from schemas.component import Part
from schemas.numerics import Numerics

DTYPES = ("float32", "bfloat16")


def main() -> None:
    """Print the two precisions side by side."""
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    seconds, effects = {}, {}
    for dtype in DTYPES:
        numerics = numerics_of(options.model, options.steps).model_copy(update={"dtype": dtype})
        model = open_named(options.model, dtype=dtype)
        seconds[dtype] = _row_seconds(model, numerics, options.batch)
        effects[dtype] = _effects(model, numerics, options)
    full_CN, half_CN = (effects[dtype] for dtype in DTYPES)
    print(
        f"{options.model} on {model.device}, {numerics.steps} steps, {len(full_CN)} captions, "
        f"{full_CN.shape[1]} components of the {options.part}, against {options.measure}"
    )
    for dtype in DTYPES:
        print(f"{dtype:9} {1e3 * seconds[dtype]:8.3f} ms a UNet row in batches of {options.batch}")
    print(f"float32 / bfloat16 {seconds['float32'] / seconds['bfloat16']:.2f}")
    each = [_spearman(a, b) for a, b in zip(full_CN, half_CN, strict=True)]
    print("rank correlation of each caption  " + "  ".join(f"{rho:.3f}" for rho in each))
    print(f"of the mean effects               {_spearman(full_CN.mean(0), half_CN.mean(0)):.3f}")
    print(f"largest effect                    {float(full_CN.abs().max()):.4f}")
    print(f"largest difference                {float((full_CN - half_CN).abs().max()):.4f}")
    if len(full_CN) > 1:
        halves = _spearman(full_CN[0::2].mean(0), full_CN[1::2].mean(0))
        print(f"between halves of the captions    {halves:.3f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument("--part", default="denoiser", choices=[part.value for part in Part])
    parser.add_argument("--captions", type=int, default=4)
    parser.add_argument("--measure", default="target")
    parser.add_argument("--batch", type=int, default=24, help="rows of the UNet calls timed")
    parser.add_argument("--rows", type=int, default=24, help="rows of the engine's batches")
    return parser.parse_args()


@torch.inference_mode()
def _row_seconds(model: Diffusion, numerics: Numerics, batch: int, calls: int = 7) -> float:
    """Return the median seconds a row of plain UNet calls."""
    x = torch.randn((batch, *model.latent_shape(height=None, width=None)), device=model.device)
    cond = encode(model, ["a photo of an apple"] * batch)
    t = torch.tensor(500, device=model.device)
    times = [
        timed(model.device, lambda: denoiser_output(model, x, t, cond, numerics))[0]
        for _ in range(calls + 1)
    ]
    return statistics.median(times[1:]) / batch


def _effects(model: Diffusion, numerics: Numerics, options: argparse.Namespace) -> torch.Tensor:
    """Return the indirect effects, float64, captions C by components N."""
    scorer = open_scorer(SCORER)
    effects = []
    for caption in range(options.captions):
        unit = make_unit(
            model,
            numerics,
            part=Part(options.part),
            components=options.components,
            caption=caption,
        )
        trials = trace_unit(
            model, scorer, unit, numerics=numerics, rows=options.rows, measures=[options.measure]
        )
        effects.append([trial.patched - trial.corrupted for trial in trials])
    return torch.tensor(effects, dtype=torch.float64)


def _spearman(a_N: torch.Tensor, b_N: torch.Tensor) -> float:
    result: Any = spearmanr(a_N, b_N)
    return float(result.statistic)


if __name__ == "__main__":
    main()
