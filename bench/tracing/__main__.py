"""The engine against the published loop (bench/tracing/published.py), in one run on one machine.

Three traces: UNet components restored in all steps; in every single step (window `each`, for which
the published loop samples once a component and step); text-encoder components. Printed: seconds,
guided row evaluations of the UNet (rows of its calls / 2), the ratio of each, and the ratio that
the arithmetic allows: N components need N + 2 runs where the loop makes 3 N; of T steps, a run
that forks at its window needs (T + 1) / 2 on average, hence 6 T / (T + 1). The engine may pass that
a little: where a row forks, the negative prompt's output is known. The images of both must agree.

    python -m bench.tracing
    python -m bench.tracing --each-components 4 --each-steps 8     # a shorter single-step trace
    python -m bench.tracing --model sd1-random --components 24 --rows 30 --traces all text
"""

import argparse
from dataclasses import dataclass

import torch

from bench.models import add_options, add_rows, choose_rows, make_unit, open_chosen
from bench.tracing.clock import timed
from bench.tracing.published import Key, published_images
from engine.model.hooks import count_rows
from engine.model.model import Diffusion
from engine.tracing.trace_unit import trace_images
from schemas.component import Part
from schemas.numerics import Numerics
from schemas.unit import Unit

TRACES = ("all", "each", "text")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One trace, made both ways."""

    name: str
    unit: Unit
    steps: int
    seconds: tuple[float, float]
    """Seconds of the published loop and of the engine."""
    rows: tuple[float, float]
    """Guided row evaluations of each."""
    difference: float
    """Largest difference of a pixel between the two."""
    effect: float
    """Largest difference of a pixel that restoring makes, with which `difference` is compared."""


def main() -> None:
    """Print one line per trace."""
    options = _options()
    model, numerics = open_chosen(options)
    choose_rows(options, model, numerics)
    print(
        f"{model.name} on {model.device}, guidance {numerics.guidance:g}, batches of "
        f"{options.rows} rows, {torch.get_num_threads()} threads"
    )
    _warm_up(model, numerics, options.rows)
    print(
        "trace  components  steps   published s  engine s  ratio   published rows  engine rows"
        "  ratio   bound  difference  effect"
    )
    for trace in options.traces:
        unit, settings = _chosen(model, numerics, trace, options)
        print(_line(_measure(model, unit, settings, trace, options.rows)), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    add_rows(parser)
    parser.add_argument("--traces", nargs="+", choices=TRACES, default=TRACES)
    parser.add_argument("--each-components", type=int, help="in the single-step trace")
    parser.add_argument("--each-steps", type=int, help="in the single-step trace")
    return parser.parse_args()


def _chosen(
    model: Diffusion, numerics: Numerics, trace: str, options: argparse.Namespace
) -> tuple[Unit, Numerics]:
    """Return the unit of a trace and the numerics that it runs with."""
    if trace == "each":
        steps = options.each_steps or numerics.steps
        numerics = numerics.model_copy(update={"steps": steps})
        count = options.each_components or options.components
        return make_unit(model, numerics, window="each", components=count), numerics
    part = Part.TEXT_ENCODER if trace == "text" else Part.DENOISER
    return make_unit(model, numerics, part=part, components=options.components), numerics


def _warm_up(model: Diffusion, numerics: Numerics, rows: int) -> None:
    short = numerics.model_copy(update={"steps": 1})
    unit = make_unit(model, short, components=1)
    trace_images(model, unit, numerics=short, rows=rows)
    published_images(model, unit, short)


def _measure(model: Diffusion, unit: Unit, numerics: Numerics, name: str, rows: int) -> Measured:
    engine_rows, published_rows = list[int](), list[int]()
    with count_rows(model.denoiser, engine_rows.append):
        engine_s, (reference, ours) = timed(
            model.device, lambda: trace_images(model, unit, numerics=numerics, rows=rows)
        )
    with count_rows(model.denoiser, published_rows.append):
        published_s, theirs = timed(model.device, lambda: published_images(model, unit, numerics))
    images: dict[Key, torch.Tensor] = {(c.component, c.window): i for c, i in ours.items()}
    return Measured(
        name=name,
        unit=unit,
        steps=numerics.steps,
        seconds=(published_s, engine_s),
        rows=(sum(published_rows) / 2, sum(engine_rows) / 2),
        difference=max(float((images[key] - theirs[key]).abs().max()) for key in theirs),
        effect=max(float((theirs[key] - reference[1]).abs().max()) for key in theirs),
    )


def _bound(measured: Measured) -> float:
    """Return the largest ratio of row evaluations that the arithmetic allows."""
    if measured.name == "each":
        return 6 * measured.steps / (measured.steps + 1)
    count = len(measured.unit.components)
    return 3 * count / (count + 2)


def _line(m: Measured) -> str:
    seconds_ratio, rows_ratio = m.seconds[0] / m.seconds[1], m.rows[0] / m.rows[1]
    return (
        f"{m.name:5}  {len(m.unit.components):10}  {m.steps:5}   "
        f"{m.seconds[0]:11.2f}  {m.seconds[1]:8.2f}  {seconds_ratio:5.2f}   "
        f"{m.rows[0]:14.0f}  {m.rows[1]:11.1f}  {rows_ratio:5.2f}   {_bound(m):5.2f}  "
        f"{m.difference:10.1e}  {m.effect:6.3f}"
    )


if __name__ == "__main__":
    main()
