"""The families of diffusion transformers keep what `FamilyTests` asks of any family."""

from typing import Any, ClassVar

from engine.model.families.cross_attention import PixArtAlpha, PixArtSigma
from engine.model.families.joint_attention import Flux, StableDiffusion3
from engine.model.families.sana import Sana, SanaSprint
from engine.model.model import Diffusion
from engine.testing.families import FamilyTests
from schemas.numerics import Numerics
from tests.models.transformers import build_flux, build_pixart, build_sana, build_sd3

AS_WRITTEN: dict[str, Any] = {"use_resolution_binning": False, "clean_caption": False}
SMALL: dict[str, Any] = {"height": 16, "width": 16}
SANA_SMALL: dict[str, Any] = {"height": 32, "width": 32}
"""SANA's pipeline draws multiples of 32 pixels."""


class TestPixArtAlpha(FamilyTests):
    """A transformer that reads the image's size, as that of 1024 pixels."""

    family = PixArtAlpha()
    numerics = Numerics(steps=2, guidance=4.0, **SMALL)
    pipeline_options: ClassVar[dict[str, Any]] = AS_WRITTEN

    def build(self) -> Any:
        return build_pixart(
            sigma=False,
            sample_size=128,
            num_layers=2,
            attention_head_dim=12,
            cross_attention_dim=24,
        )


class TestPixArtSigma(FamilyTests):
    """A longer caption, and no size."""

    family = PixArtSigma()
    numerics = Numerics(steps=3, guidance=4.0, negative_prompt="two small birds")
    pipeline_options: ClassVar[dict[str, Any]] = AS_WRITTEN

    def build(self) -> Any:
        return build_pixart(sigma=True)

    def test_what_no_text_has_reached_moves_nothing_at_the_first_step(
        self, model: Diffusion
    ) -> None:
        names = [
            f"transformer.transformer_blocks.{n}.attn{side}" for n in (0, 1) for side in (1, 2)
        ]
        assert self.moved_at_the_first_step(model, names) == [False, True, True, True]


class TestSana(FamilyTests):
    """An instruction before the caption, and none before the negative prompt."""

    family = Sana()
    numerics = Numerics(steps=3, guidance=4.0, negative_prompt="two small birds", **SANA_SMALL)
    pipeline_options: ClassVar[dict[str, Any]] = AS_WRITTEN

    def build(self) -> Any:
        return build_sana(sprint=False)

    def test_what_no_text_has_reached_moves_nothing_at_the_first_step(
        self, model: Diffusion
    ) -> None:
        names = [
            f"transformer.transformer_blocks.{n}.attn{side}" for n in (0, 1) for side in (1, 2)
        ]
        assert self.moved_at_the_first_step(model, names) == [False, True, True, True]


class TestSanaSprint(FamilyTests):
    """An embedded guidance scale, and a scheduler that draws noise at every step."""

    family = SanaSprint()
    numerics = Numerics(steps=2, guidance=4.5, **SANA_SMALL)
    pipeline_options: ClassVar[dict[str, Any]] = AS_WRITTEN

    def build(self) -> Any:
        return build_sana(sprint=True)


class TestStableDiffusion3(FamilyTests):
    """Three text encoders, and both kinds of block of SD3.5 medium."""

    family = StableDiffusion3()

    def build(self) -> Any:
        return build_sd3()


class TestStableDiffusion3WithoutT5(FamilyTests):
    """Zeros stand for T5's rows, as many as it was trained with; a token is one cell of a latent;
    the steps are shifted by the image's size."""

    family = StableDiffusion3()
    pipeline_options: ClassVar[dict[str, Any]] = {"max_sequence_length": 3}

    def build(self) -> Any:
        pipeline = build_sd3(has_t5=False, dual_attention_layers=(), num_layers=2, patch_size=1)
        pipeline.transformer.register_to_config(_max_sequence_length=3)
        pipeline.register_modules(
            scheduler=type(pipeline.scheduler)(shift=3.0, use_dynamic_shifting=True)
        )
        return pipeline


class TestFluxDev(FamilyTests):
    """An embedded guidance scale, and steps that are shifted by the image's size."""

    family = Flux()
    numerics = Numerics(steps=2, guidance=3.5, **SMALL)

    def build(self) -> Any:
        return build_flux(guidance_embeds=True)


class TestFluxSchnell(FamilyTests):
    """No guidance, and half as many text rows."""

    family = Flux()
    numerics = Numerics(steps=2, guidance=1.0, **SMALL)
    pipeline_options: ClassVar[dict[str, Any]] = {"max_sequence_length": 256}

    def build(self) -> Any:
        return build_flux(guidance_embeds=False)
