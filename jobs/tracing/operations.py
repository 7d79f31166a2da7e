"""The arithmetic of a plan before it runs, and what to do about one that takes too long."""

from engine.model.opening import latent_cells, open_skeleton
from engine.model.shapes import row_operations
from jobs.tracing.cost import Cost, plan_cost
from jobs.tracing.plan import CheckedPlan

PETA = 1e15
RATE = 300e12
"""Floating-point operations that a large GPU does in a second, in half precision."""
LONG = 200 * PETA
"""Operations of a unit from which on a plan is long: eleven minutes of such a GPU."""
LARGE = 5_000_000_000
"""Weights of the denoiser from which on a plan may be long."""


def plan_petaflops(planned: CheckedPlan, cost: Cost) -> float:
    """Return the floating-point operations of a plan's denoiser in all its rows, in 1e15."""
    numerics = planned.plan.numerics
    height, width = latent_cells(planned.plan.model, height=numerics.height, width=numerics.width)
    of_row = row_operations(open_skeleton(planned.plan.model), height=height, width=width)
    return cost.row_evaluations * of_row * (1 + planned.is_guided) / PETA


def long_plan_note(cost: Cost, petaflops: float, *, is_screen: bool) -> str | None:
    """Return an advice for a plan whose every unit takes long; None: a unit does not.

    A screen takes some ten evaluations a step, however many components it has.
    """
    of_unit = petaflops / cost.units
    if of_unit * PETA < LONG:
        return None
    hours = petaflops * PETA / RATE / 3600
    screen = "" if is_screen else "estimate all components by --screen, or "
    return (
        f"every unit takes {of_unit:,.0f} PFLOP, and the plan {hours:,.0f} hours of a GPU that "
        f"does {RATE / 1e12:.0f} TFLOP/s: {screen}trace runs of components by --consecutive, fewer "
        "--steps, a smaller --height and --width, or by --component those that a screening found"
    )


def note_of_large_model(planned: CheckedPlan) -> str | None:
    """Return `long_plan_note` for a large model; None for any other."""
    weights = open_skeleton(planned.plan.model).denoiser.parameters()
    if sum(weight.numel() for weight in weights) < LARGE:
        return None
    cost = plan_cost(planned)
    petaflops = plan_petaflops(planned, cost)
    return long_plan_note(cost, petaflops, is_screen=planned.plan.screen is not None)
