"""The families whose text encoder is a language model keep what `FamilyTests` asks of any."""

from typing import Any, ClassVar

from engine.model.families.flux2 import Flux2Klein
from engine.model.families.qwen_image import QwenImage
from engine.model.families.z_image import ZImage
from engine.testing.families import FamilyTests
from schemas.numerics import Numerics
from tests.models.language_models import build_klein, build_qwen_image, build_z_image

SMALL: dict[str, Any] = {"height": 16, "width": 16}


class TestZImage(FamilyTests):
    """Captions of unequal length in one batch; the pipeline's guidance scale is 1 less."""

    family = ZImage()
    numerics = Numerics(steps=2, guidance=4.0, negative_prompt="two small birds", **SMALL)
    pipeline_options: ClassVar[dict[str, Any]] = {"guidance_scale": 3.0}

    def build(self) -> Any:
        return build_z_image()


class TestQwenImage(FamilyTests):
    """A caption under an instruction that is dropped, and guidance of unchanged norm."""

    family = QwenImage()
    numerics = Numerics(steps=2, guidance=4.0, negative_prompt="two small birds", **SMALL)
    pipeline_options: ClassVar[dict[str, Any]] = {"true_cfg_scale": 4.0}

    def build(self) -> Any:
        return build_qwen_image()


class TestFlux2Klein(FamilyTests):
    """Guidance by the empty prompt, and no guidance where the index says that it is distilled."""

    family = Flux2Klein()
    numerics = Numerics(steps=2, guidance=3.0, **SMALL)

    def build(self) -> Any:
        return build_klein(is_distilled=False)
