"""The published loop draws what the engine draws, run by run and from the first step."""

from pathlib import Path

import pytest

from bench.tracing.published import published_images
from engine.model.components import list_components
from engine.model.opening import open_model
from engine.tracing.trace_unit import trace_images
from schemas.caption import Caption
from schemas.component import PAPER_KINDS, Part
from schemas.numerics import Numerics
from schemas.unit import Unit
from tests.rounding import assert_near


@pytest.mark.parametrize("part", Part)
def test_images_are_the_engines(tiny_sd3: Path, part: Part) -> None:
    model, numerics = open_model(str(tiny_sd3), device="cpu"), Numerics(steps=2, guidance=4.0)
    names = [c.name for c in list_components(model, PAPER_KINDS) if c.part is part]
    unit = Unit(
        caption=Caption(caption="a red apple", subject="red apple", attribute="object"),
        seed=0,
        draw=0,
        part=part,
        components=(names[0], names[3]),
        windows=((0, 2),) if part is Part.TEXT_ENCODER else ((0, 2), (1, 2)),
    )
    (_, corrupted), ours = trace_images(model, unit, numerics=numerics, rows=8)
    theirs = published_images(model, unit, numerics)
    assert len(ours) == len(theirs)
    for patch, image_CHW in ours.items():
        assert_near(theirs[patch.component, patch.window], image_CHW, patch.component)
    assert any(float((image_CHW - corrupted).abs().max()) > 1e-3 for image_CHW in ours.values())
