"""A screen against exact effects: agreement, row evaluations and variance, for any model.

For each attribute some captions are traced exactly at every single step and screened by both
estimators. Printed: (a) the agreement: Spearman within captions and of means, the share of the
exact top tenth found in the screen's top fifth (and in that of an exact run on the other half of
the captions), the miss rate; row evaluations by the ledger; (b) the share of cells that have to be
run exactly to find 0.9 of the exact top tenth, and the work that this saves; (c) the variance of
the mean with few exact and all screened captions, and the bound 1 / (1 - r^2); (d) the agreement
where all steps are patched at once, and the least number of components for which that pays.

    python -m bench.screening --captions 2 --steps 3 --components 4     # a trial
    python -m bench.screening --captions 24 --steps 20 --measure target
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from bench.models import component_names
from bench.screening.agreement import agreement, gain, least_share
from bench.screening.cells import EXACT, Effects, measured
from bench.screening.work import all_steps, every_step, pays_from, screen
from engine.model.defaults import default_noise, default_sampling
from engine.model.opening import count_steps, open_model
from engine.model.registry import default_scorer
from engine.model.scorer import open_scorer
from engine.statistics.inference import Array
from jobs.input.captions import pick
from jobs.input.probes import probe_set
from schemas.caption import Caption
from schemas.component import Part
from schemas.numerics import Numerics
from schemas.screen import Screen
from schemas.unit import Unit
from schemas.window import expand_windows

SIZES = ((29, 20), (70, 50))
"""Components and steps of emoji-sd and of Stable Diffusion 1."""
DRAWS = 200


def main() -> None:
    """Print the tables."""
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    own = default_sampling(options.model)
    numerics = Numerics(
        steps=options.steps or own.steps,
        guidance=own.guidance,
        noise_sigmas=default_noise(options.model),
    )
    model = open_model(options.model)
    scorer = open_scorer(options.scorer or default_scorer(options.model))
    captions = pick(probe_set(options.probe), each=options.captions)
    attributes = dict.fromkeys(caption.attribute for caption in captions)
    steps = count_steps(options.model, scheduler=None, steps=numerics.steps)
    unit = Unit(
        caption=captions[0],
        seed=0,
        draw=0,
        part=Part.DENOISER,
        components=component_names(model, Part.DENOISER, options.components),
        windows=expand_windows(["each"], steps),
    )
    print(
        f"{options.model}: {len(unit.components)} components x {steps} steps, measure "
        f"{options.measure}, {options.captions} captions an attribute"
    )
    print(AGREEMENT)
    at_once: dict[str, Effects] = {}
    for attribute in attributes:
        own_captions = [caption for caption in captions if caption.attribute == attribute]
        found, at_once[attribute] = (
            measured(
                model,
                scorer,
                replace(unit, windows=windows),
                own_captions,
                numerics=numerics,
                measure=options.measure,
                rows=options.rows,
            )
            for windows in (unit.windows, ((0, steps),))
        )
        _print_attribute(attribute, own_captions, found)
    _print_at_once(at_once)
    _print_arithmetic()


AGREEMENT = (
    "attribute   estimate     within   means   found   by half  missed   exact share  saved  "
    "rows exact  screen   ratio   gain  bound   gain top  bound top"
)


def _print_attribute(attribute: str, captions: Sequence[Caption], found: Effects) -> None:
    exact_KN, exact_rows = found.effects_KN[EXACT], found.row_evaluations[EXACT]
    for estimate in Screen:
        screened_KN = found.effects_KN[estimate]
        agreed, rows = agreement(exact_KN, screened_KN), found.row_evaluations[estimate]
        share = least_share(exact_KN.mean(1), screened_KN.mean(1))
        saved = exact_rows / (rows + share * exact_rows)
        half = _share_text(agreed.by_other_half)
        print(
            f"{attribute:10}  {estimate:11}  {agreed.within:6.2f}  {agreed.of_means:6.2f}  "
            f"{agreed.found:6.2f}  {half:>8}  {agreed.missed:6.2f}   {share:11.2f}  {saved:5.1f}  "
            f"{exact_rows:10.0f}  {rows:6.0f}  {exact_rows / rows:6.1f}  "
            f"{_gain_text(exact_KN, screened_KN, len(captions))}",
            flush=True,
        )


def _print_at_once(of_attributes: Mapping[str, Effects]) -> None:
    """Print the same of components that are patched at all steps at once."""
    print("\nall steps   estimate     within   means   found   by half  rows exact  screen")
    for attribute, found in of_attributes.items():
        for estimate in Screen:
            agreed = agreement(found.effects_KN[EXACT], found.effects_KN[estimate])
            print(
                f"{attribute:10}  {estimate:11}  {agreed.within:6.2f}  {agreed.of_means:6.2f}  "
                f"{agreed.found:6.2f}  {_share_text(agreed.by_other_half):>8}  "
                f"{found.row_evaluations[EXACT]:10.0f}  {found.row_evaluations[estimate]:6.0f}"
            )


def _share_text(share: float | None) -> str:
    return "-" if share is None else f"{share:.2f}"


def _gain_text(exact_KN: Array, screened_KN: Array, captions: int) -> str:
    """Return the gains of a third of the captions, six at least, where there are twice as many."""
    exact = max(6, captions // 3)
    if captions < 2 * exact:
        return f"{'-':>5}  {'-':>5}   {'-':>8}  {'-':>9}"
    found = gain(exact_KN, screened_KN, exact=exact, draws=DRAWS)
    return (
        f"{found.measured:5.1f}  {found.bound:5.1f}   {found.of_top:8.1f}  "
        f"{found.bound_of_top:9.1f}"
    )


def _print_arithmetic() -> None:
    """Print row evaluations by the ledger, which no model changes."""
    print("\ncomponents x steps   exact, every step   screen   ratio   all steps   pays from")
    for components, steps in SIZES:
        exact, one = every_step(components, steps), screen(steps)
        print(
            f"{components:10} x {steps:<5}   {exact:17.0f}   {one:6.0f}   {exact / one:5.0f}   "
            f"{all_steps(components, steps):9.0f}   {pays_from(steps):4} components"
        )
    print("\nfound 0.9 with an exact share of   saved at 29 x 20   at 70 x 50")
    for share in np.arange(0.05, 0.45, 0.05):
        ratios = [
            every_step(n, t) / (screen(t) + every_step(n, t, share=float(share)) - 2 * t)
            for n, t in SIZES
        ]
        print(f"{share:32.2f}   {ratios[0]:16.1f}   {ratios[1]:10.1f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="emoji-sd", help="built-in name, folder or hub id")
    parser.add_argument("--scorer", help="default: the model's own")
    parser.add_argument("--probe", default="emoji-sd", help="probe set of the captions")
    parser.add_argument("--captions", type=int, default=24, help="of each attribute")
    parser.add_argument("--steps", type=int, help="default: the model's own")
    parser.add_argument("--components", type=int, help="spread over the denoiser; default: all")
    parser.add_argument("--measure", default="target")
    parser.add_argument("--rows", type=int, default=24, help="rows of the exact trace's batches")
    parser.add_argument("--threads", type=int, help="of torch; its own default if not given")
    return parser.parse_args()


if __name__ == "__main__":
    main()
