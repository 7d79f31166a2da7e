"""The arithmetic of docs/one-gpu.md is what its command prints."""

import re

import pytest

from bench.one_gpu import CELLS, row_of
from tests.docs.shown import ROOT

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
