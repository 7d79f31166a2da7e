"""SANA and SANA-Sprint: a transformer with linear self-attention whose cross-attention reads Gemma.

The pipeline puts an instruction of some hundred tokens before the caption, and keeps the first
position and the last 299: so the caption stands elsewhere among the text rows than in Gemma. A
feed-forward is a convolution, whose output is channels x height x width.

Shapes: R rows, L token positions, D text width, C channels, h x w latent.
"""

import inspect
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import diffusers
import torch
from diffusers import AutoencoderDC, SanaTransformer2DModel
from transformers import Gemma2Model

from engine.model.conditioning import Conditioning, TextPlace
from engine.model.families.cross_attention import CrossAttentionFamily
from engine.model.families.t5 import padding_mask
from engine.model.families.transformers import check_given, check_latent, check_width
from engine.model.settings import Allowed, refuse_settings
from engine.model.tokens import TemplateTokenizer, tokenize

if TYPE_CHECKING:
    from engine.model.model import Diffusion, Skeleton

LENGTH = 300
"""Text rows: the first position and the last 299."""


class Sana(CrossAttentionFamily):
    """`SanaPipeline` (Xie et al. 2024); captions are lowered, not cleaned further."""

    pipeline = "SanaPipeline"
    networks = MappingProxyType(
        {
            "text_encoder": Gemma2Model,
            "transformer": SanaTransformer2DModel,
            "vae": AutoencoderDC,
        }
    )
    modulation = "time_embed"

    def check_settings(self, networks: Mapping[str, Any]) -> None:
        """Refuse another width of text, channels besides the latent, and a guidance embedding."""
        config = networks["transformer"].config
        embeds = self.embeds_guidance(networks["transformer"])
        allowed: Allowed = {
            ("transformer", "guidance_embeds"): (embeds,),
            ("vae", "in_channels"): (3,),  # the image's too: AutoencoderDC has no out_channels
        }
        refuse_settings(networks, allowed)
        check_latent(networks["vae"], reads=config.in_channels)
        check_given(networks, config.in_channels, 2 * config.in_channels)
        width = networks["text_encoder"].config.hidden_size
        check_width(networks, "text_encoder", gives=width, reads=config.caption_channels)

    def instruction(self) -> str:
        """Return the text that the pipeline puts before every caption."""
        call = inspect.signature(getattr(diffusers, self.pipeline).__call__)
        return "\n".join(call.parameters["complex_human_instruction"].default)

    def length_of(self, part: str, denoiser: Any) -> int | None:
        """Return the positions of a caption that become text rows."""
        return LENGTH

    def prepare_tokenizer(self, tokenizer: Any, *, part: str, denoiser: Any) -> Any:
        """Return a tokenizer that puts the instruction before a lowered caption."""
        before = self.instruction()
        length = len(tokenizer.encode(before)) + LENGTH - 2
        tokenizer.padding_side = "right"
        return TemplateTokenizer(tokenizer, before=before, length=length)

    def cross_attention_rows(self, denoiser: Any, text_RLD: torch.Tensor) -> torch.Tensor:
        """Return the projected and normed rows."""
        return denoiser.caption_norm(denoiser.caption_projection(text_RLD))

    def encode(self, model: "Diffusion | Skeleton", ids: Sequence[torch.Tensor]) -> Conditioning:
        """Return the last hidden state of the first position and the last 299, and their mask."""
        (ids_RL,) = ids
        text_RLD = self.run_encoder(model.encoders[0], ids_RL)[0].to(model.denoiser.dtype)
        mask_RL = padding_mask(model.text_encoder, ids_RL)
        kept = [0, *range(-LENGTH + 1, 0)]
        return Conditioning(
            text_RLD=text_RLD[:, kept],
            mask_RL=mask_RL[:, kept],
            places=(TextPlace(skipped=ids_RL.shape[1] - LENGTH),),
        )

    def unconditional(self, model: "Diffusion", prompt: str) -> Conditioning:
        """Return the one row of the negative prompt, which has no instruction before it."""
        ids_RL = tokenize(model.tokenizer.without_template(LENGTH), [prompt])
        return self.encode(model, [ids_RL.to(model.device)])

    def vae_factor(self, vae: Any) -> int:
        """Return the pixels of one latent cell along a side: 32 in the deep VAE of SANA."""
        return 2 ** (len(vae.config.encoder_block_out_channels) - 1)

    def predict(
        self,
        model: "Diffusion | Skeleton",
        x_RChw: torch.Tensor,
        t: torch.Tensor,
        cond: Conditioning,
        *,
        guidance: float,
        pixels: tuple[int, int],
    ) -> torch.Tensor:
        """Return the transformer's output without a learned variance, which no pipeline reads."""
        t_R = t.expand(len(x_RChw)) * model.denoiser.config.timestep_scale
        return self._output(model, x_RChw, t_R, cond)[:, : x_RChw.shape[1]]

    def _output(
        self,
        model: "Diffusion | Skeleton",
        x_RChw: torch.Tensor,
        t_R: torch.Tensor,
        cond: Conditioning,
        **options: Any,
    ) -> torch.Tensor:
        transformer = model.denoiser
        return transformer(
            x_RChw.to(transformer.dtype),
            encoder_hidden_states=cond.text_RLD,
            encoder_attention_mask=cond.mask_RL,
            timestep=t_R,
            return_dict=False,
            **options,
        )[0]


class SanaSprint(Sana):
    """`SanaSprintPipeline` (Chen et al. 2025): one to four steps of a consistency model.

    The scheduler is `scm`; the transformer, trained on a flow, embeds the guidance scale.
    """

    pipeline = "SanaSprintPipeline"

    def embeds_guidance(self, denoiser: Any) -> bool:
        """Return True; another transformer is refused."""
        return True

    def predict(
        self,
        model: "Diffusion | Skeleton",
        x_RChw: torch.Tensor,
        t: torch.Tensor,
        cond: Conditioning,
        *,
        guidance: float,
        pixels: tuple[int, int],
    ) -> torch.Tensor:
        """Return the scheduler's input at the angle t, which the pipeline computes from the flow's
        velocity."""
        sigma, config = _sigma_data(model), model.denoiser.config
        flow = t.sin() / (t.cos() + t.sin())
        size = (flow**2 + (1 - flow) ** 2).sqrt()
        x_in = x_RChw / sigma * size
        scale_R = torch.full((len(x_RChw),), guidance, device=x_RChw.device).to(cond.text_RLD)
        velocity = self._output(
            model,
            x_in,
            flow.expand(len(x_RChw)),
            cond,
            guidance=scale_R * config.guidance_embeds_scale,
        )
        mixed = (1 - 2 * flow) * x_in + (1 - 2 * flow + 2 * flow**2) * velocity
        return (mixed / size).float() * sigma

    def decode(self, model: "Diffusion", x_RChw: torch.Tensor) -> torch.Tensor:
        """Return images_RCHW in [0, 1] of latents of the scheduler's size."""
        return super().decode(model, x_RChw / _sigma_data(model))


def _sigma_data(model: "Diffusion | Skeleton") -> float:
    """Return the standard deviation of the scheduler's latents; 1 in a skeleton, which has none."""
    scheduler = getattr(model, "scheduler", None)
    return 1.0 if scheduler is None else scheduler.config.sigma_data
