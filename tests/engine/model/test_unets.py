"""The families with a UNet keep what `FamilyTests` asks of any family."""

from typing import Any

import pytest

from engine.model.families.deepfloyd import DeepFloydIF
from engine.model.families.sdxl import StableDiffusionXL
from engine.model.families.stable_diffusion import LatentConsistency, StableDiffusion
from engine.testing.families import FamilyTests
from schemas.numerics import Numerics
from tests.models.families import build_if, build_lcm, build_sd2, build_sdxl

NEGATIVE = "two small birds"


@pytest.mark.slow
class TestStableDiffusion2(FamilyTests):
    """v-prediction, and padding that is a word; version 1 is the toy package's."""

    family = StableDiffusion()
    numerics = Numerics(steps=2, guidance=4.0, negative_prompt=NEGATIVE)

    def build(self) -> Any:
        return build_sd2()


class TestLatentConsistency(FamilyTests):
    """An embedded guidance scale, and a scheduler that draws noise at every step."""

    family = LatentConsistency()

    def build(self) -> Any:
        return build_lcm()


class TestStableDiffusionXL(FamilyTests):
    """Two text encoders, and a pooled embedding that no component of the UNet takes in."""

    family = StableDiffusionXL()

    def build(self) -> Any:
        return build_sdxl()


class TestDeepFloydIF(FamilyTests):
    """T5, pixels, and a variance that the scheduler reads."""

    family = DeepFloydIF()
    numerics = Numerics(steps=2, guidance=4.0, negative_prompt=NEGATIVE)

    def build(self) -> Any:
        return build_if()
