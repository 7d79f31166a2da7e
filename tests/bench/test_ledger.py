"""The time of a trace by its use, on a tiny model of each kind."""

import time
from pathlib import Path

import pytest

from bench.tracing.ledger import DENOISER, watched
from engine.model.components import list_components
from engine.model.opening import open_model
from engine.model.scorer import open_scorer
from engine.tracing.trace_unit import trace_unit
from schemas.caption import Caption
from schemas.component import PAPER_KINDS, Part
from schemas.numerics import Numerics
from schemas.unit import Unit

STEPS, COMPONENTS = 2, 3


@pytest.mark.parametrize("model", ["tiny_sd", "tiny_sd3"])
def test_a_traces_time_is_divided_by_use(
    request: pytest.FixtureRequest, tiny_scorer: Path, model: str
) -> None:
    opened = open_model(str(request.getfixturevalue(model)), device="cpu")
    found = [c for c in list_components(opened, PAPER_KINDS) if c.part is Part.DENOISER]
    unit = Unit(
        caption=Caption(caption="a red apple", subject="red apple", attribute="object"),
        seed=0,
        draw=0,
        part=Part.DENOISER,
        components=tuple(c.name for c in found[:COMPONENTS]),
        windows=((0, STEPS),),
    )
    numerics = Numerics(steps=STEPS, guidance=4.0)
    scorer = open_scorer(str(tiny_scorer))
    start = time.perf_counter()
    with watched(opened, time.perf_counter) as ledger:
        trace_unit(opened, scorer, unit, numerics=numerics, rows=16)
    seconds = time.perf_counter() - start
    known = COMPONENTS  # at the first step the negative prompt's output of a forked row is
    assert ledger.rows == 2 * STEPS * (2 + COMPONENTS) - known
    assert {DENOISER, "guidance", "scheduler", "scoring", "text encoding"} <= set(ledger.spans)
    assert min(ledger.spans.values()) >= 0
    assert seconds / 2 < sum(ledger.spans.values()) <= seconds
