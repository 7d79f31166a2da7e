"""The arithmetic of docs/one-gpu.md is what its command prints."""

import re
from dataclasses import replace

import pytest

from bench.one_gpu import CELLS, row_of
from engine.tracing.screening import screen_evaluations
from jobs.tracing.operations import long_plan_note
from schemas.caption import Caption
from schemas.component import Part
from schemas.numerics import Numerics
from schemas.unit import Unit
from tests.docs.shown import ROOT
from tests.jobs.tracing.test_operations import COST

PAGE = (ROOT / "docs/one-gpu.md").read_text()


def shown() -> dict[str, list[str]]:
    """Return the cells of each model's row on the page."""
    lines = re.findall(r"^\| `(.+?)` \| (.+) \|$", PAGE, flags=re.MULTILINE)
    return {name: cells.split(" | ") for name, cells in lines if name in CELLS}


def test_the_page_has_a_row_for_every_model() -> None:
    assert list(shown()) == list(CELLS)


@pytest.mark.parametrize("name", ["pixart-sigma", "flux-schnell", "flux2-klein-4b"])
def test_a_row_of_the_page_is_what_the_command_prints(name: str) -> None:
    row, cells = row_of(name), shown()[name]
    printed = [float(str(row[column])) for column in ("text_gigabytes", "denoiser_gigabytes")]
    assert [f"{value:.1f}" for value in printed] == cells[:2]
    operations = float(str(row["petaflops_a_caption"]))
    ((said, steps),) = re.findall(r"^([\d.]+) at \d+ px, (\d+) steps$", cells[-1])
    assert float(said) == pytest.approx(operations, abs=0.5 if operations > 10 else 0.05)
    assert int(steps) == row["steps"]


def unit() -> Unit:
    """Return a unit of the denoiser."""
    caption = Caption(caption="a red apple", subject="apple", attribute="object")
    return Unit(
        caption=caption, seed=0, draw=0, part=Part.DENOISER, components=("any",), windows=((0, 50),)
    )


def test_a_caption_of_qwen_image_is_long_and_its_screen_is_not() -> None:
    """At 512 pixels and the model's own steps, every component of the denoiser."""
    row, one = row_of("qwen-image"), replace(COST, units=1)
    traced = float(str(row["petaflops_a_caption"]))
    assert "--screen" in str(long_plan_note(one, traced, is_screen=False))
    screened = screen_evaluations(
        unit(), Numerics(steps=50), steps=50, is_guided=True, num_measures=2
    )
    petaflops = screened * 2 * float(str(row["teraflops_a_row"])) / 1e3
    assert long_plan_note(one, petaflops, is_screen=True) is None
