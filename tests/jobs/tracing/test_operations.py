"""The operations of a plan, and what is said of one that takes long."""

from engine.model.shapes import row_operations
from jobs.tracing.cost import Cost
from jobs.tracing.operations import long_plan_note
from tests.models.full_sizes import FULL_SIZES

COST = Cost(
    units=2,
    patched_runs=10,
    row_evaluations=100,
    scores=10,
    bytes=1,
    text_weight_bytes=1,
    denoiser_weight_bytes=1,
)


def test_a_rows_operations_are_those_of_its_tokens() -> None:
    """Two for each weight and token of image and text, but for modulations, which are of a row."""
    model = FULL_SIZES["flux2-klein-4b"].open("flux2-klein-4b")
    counted = {side: row_operations(model, height=side, width=side) for side in (32, 64)}
    weights = sum(
        weight.numel()
        for name, weight in model.denoiser.named_parameters()
        if "single_transformer_blocks" in name and weight.ndim == 2
    )
    joint = sum(
        weight.numel()
        for name, weight in model.denoiser.named_parameters()
        if ".transformer_blocks" in f".{name}" and weight.ndim == 2
    )
    tokens = 32 * 32
    linear = 2 * (weights * (tokens + 512) + joint // 2 * (tokens + 512))
    assert linear < counted[32] < 1.2 * linear
    assert 2.5 < counted[64] / counted[32] < 4


def test_a_plan_of_long_units_says_what_to_do() -> None:
    assert long_plan_note(COST, 2 * 199, is_screen=False) is None
    said = str(long_plan_note(COST, 2 * 400, is_screen=False))
    assert said.startswith("every unit takes 400 PFLOP, and the plan 1 hours of a GPU")
    assert (
        "estimate all components by --screen, or trace runs of components by --consecutive" in said
    )
    assert "--screen" not in str(long_plan_note(COST, 2 * 400, is_screen=True))
