"""FLUX.2: joint blocks, then single ones with attention and MLP in one, after a language model:
Mistral 3 (dev), whose tokenizer pads in front, or Qwen3 (klein).

A text row is the states before three layers of the language model side by side, so that an early
layer reaches the transformer by up to three doors; what comes after the third is read by nothing.
Rows of padding are read too, and rows have places: a padding in front moves those of the text. One
modulation, which knows no text, serves all blocks of a kind.

Latents are those of the VAE in squares of 2 x 2 cells, one a token, standardized.

Shapes: R rows, L token positions, D text width, C channels, h x w latent.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu, format_input
from transformers import Mistral3ForConditionalGeneration, Qwen3ForCausalLM

from engine.model.conditioning import Conditioning
from engine.model.families.joint_attention import joint_sites
from engine.model.families.language_models import (
    ChatTokenizer,
    LanguageModelFamily,
    Template,
    states_before,
    user_message,
)
from engine.model.families.transformers import (
    check_given,
    check_width,
    dead_modulation,
)
from engine.model.hooks import HookPoint, Side
from engine.model.model import from_minus_one
from engine.model.settings import Allowed, refuse_settings
from engine.model.sites import (
    FEED,
    JOINT,
    STREAMS,
    NetworkSite,
    Spans,
    image_and_text,
    streams,
    whole,
)
from engine.model.weight_files import PartError
from schemas.component import Kind

if TYPE_CHECKING:
    from engine.model.model import Diffusion, Skeleton

LENGTH = 512
"""Token positions of a caption in its template, padding included: the text rows."""
SQUARE = 2
"""Cells of the VAE's latents along a side of a token."""
SETTINGS: Allowed = {
    ("vae", "out_channels"): (3,),
    ("transformer", "patch_size"): (1,),
}


class Flux2(LanguageModelFamily):
    """`Flux2Pipeline`, dev: the guidance scale is embedded."""

    pipeline = "Flux2Pipeline"
    own_cells = 64
    padding_sides = frozenset({"left", "right"})
    has_processor = True
    networks: ClassVar[Mapping[str, type]] = MappingProxyType(
        {
            "text_encoder": Mistral3ForConditionalGeneration,
            "transformer": Flux2Transformer2DModel,
            "vae": AutoencoderKLFlux2,
        }
    )
    read: ClassVar[tuple[int, ...]] = (10, 20, 30)
    """The layers of the language model whose inputs are read, counted from 0."""
    has_scale: ClassVar[bool] = True
    """Whether the transformer embeds the guidance scale."""

    def check_settings(self, networks: Mapping[str, Any]) -> None:
        """Refuse other channels, another width of text, a guidance embedding where the pipeline has
        another or none, and too few layers."""
        scale = {("transformer", "guidance_embeds"): (self.has_scale,)}
        refuse_settings(networks, {**SETTINGS, **scale})
        reads, vae = networks["transformer"].config, networks["vae"].config
        given = vae.latent_channels * SQUARE**2
        if list(vae.patch_size) != [SQUARE, SQUARE]:
            raise PartError(f"its vae has patch_size = {list(vae.patch_size)}, not [2, 2]")
        if reads.in_channels != given:
            raise PartError(
                f"its transformer has in_channels = {reads.in_channels} where its vae's latents "
                f"need {given}"
            )
        check_given(networks, given)
        config, last = networks["text_encoder"].config.get_text_config(), self.read[-1]
        if config.num_hidden_layers < last:
            raise PartError(
                f"its text_encoder has {config.num_hidden_layers} layers, of which the pipeline "
                f"reads the first {last}"
            )
        width = len(self.read) * config.hidden_size
        check_width(networks, "text_encoder", gives=width, reads=reads.joint_attention_dim)

    def length_of(self, part: str, denoiser: Any) -> int | None:
        """Return the pipeline's length."""
        return LENGTH

    def prepare_tokenizer(self, tokenizer: Any, *, part: str, denoiser: Any) -> Any:
        """Return the processor's tokenizer, which puts captions in a user's message after the
        pipeline's instruction."""
        own, template = tokenizer.tokenizer, instructed(tokenizer)
        return ChatTokenizer(
            own,
            template=template,
            length=LENGTH,
            padding_side=own.padding_side,
            starts_once=True,
        )

    def read_layers(self, part: str, layers: int) -> int:
        """Return the layers before the third state that is read."""
        return self.read[-1]

    def encode(self, model: "Diffusion | Skeleton", ids: Sequence[torch.Tensor]) -> Conditioning:
        """Return the states before three layers, side by side; padding is read."""
        (encoder,), (ids_RL,) = model.encoders, ids
        states = states_before(encoder, self.read, lambda: self.run_encoder(encoder, ids_RL))
        return Conditioning(text_RLD=torch.cat(states, dim=-1).to(model.denoiser.dtype))

    def embeds_guidance(self, denoiser: Any) -> bool:
        """Return whether it is dev."""
        return self.has_scale

    def sites(self, denoiser: Any) -> Iterator[NetworkSite]:
        """Yield the modulation, which is dead, the text's projection, both sides of every joint
        block, and both spans of every single block."""
        yield dead_modulation("time_guidance_embed", denoiser.time_guidance_embed)
        yield whole("context_embedder", denoiser.context_embedder, Kind.TEXT_PROJECTION, 0)
        joint, single = denoiser.transformer_blocks, denoiser.single_transformer_blocks
        for layer, block in enumerate(joint):
            yield from joint_sites(f"transformer_blocks.{layer}", block, layer)
        for n, block in enumerate(single):
            is_last = n == len(single) - 1
            path = f"single_transformer_blocks.{n}"
            yield from fused_sites(path, block, len(joint) + n, is_last=is_last)

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
        """Return the transformer's output, the velocity of the flow, in the latents' layout."""
        transformer, (rows, _, height, width) = model.denoiser, x_RChw.shape
        scale = None
        if self.has_scale:
            scale = torch.full((rows,), guidance, device=x_RChw.device, dtype=torch.float32)
        output_RTC = transformer(
            x_RChw.flatten(2).transpose(1, 2).to(transformer.dtype),
            timestep=t.expand(rows) / 1000,
            guidance=scale,
            encoder_hidden_states=cond.text_RLD,
            txt_ids=places_of(1, 1, cond.text_RLD.shape[1]).to(x_RChw.device),
            img_ids=places_of(height, width, 1).to(x_RChw.device),
            return_dict=False,
        )[0]
        return output_RTC.transpose(1, 2).unflatten(2, (height, width))

    def schedule(self, scheduler: Any, *, steps: int, tokens: int) -> dict[str, Any]:
        """Return sigmas from 1 to 1 / steps, and their shift at the image's size and the steps."""
        given: dict[str, Any] = {"mu": compute_empirical_mu(image_seq_len=tokens, num_steps=steps)}
        if not scheduler.config.get("use_flow_sigmas"):
            given["sigmas"] = np.linspace(1.0, 1 / steps, steps)
        return given

    def decode(self, model: "Diffusion", x_RChw: torch.Tensor) -> torch.Tensor:
        """Return images_RCHW in [0, 1] of squares that the VAE's norm standardized."""
        vae = model.vae
        std_C = (vae.bn.running_var + vae.config.batch_norm_eps).sqrt()
        x_RChw = x_RChw * std_C[:, None, None] + vae.bn.running_mean[:, None, None]
        images_RCHW = vae.decode(torch.pixel_shuffle(x_RChw, SQUARE), return_dict=False)[0]
        return from_minus_one(images_RCHW)

    def vae_factor(self, vae: Any) -> int:
        """Return the pixels of a token along a side."""
        return SQUARE * super().vae_factor(vae)


class Flux2Klein(Flux2):
    """`Flux2KleinPipeline`: distilled to four steps without guidance, or not."""

    pipeline = "Flux2KleinPipeline"
    has_processor = False
    networks: ClassVar[Mapping[str, type]] = MappingProxyType(
        {**Flux2.networks, "text_encoder": Qwen3ForCausalLM}
    )
    read: ClassVar[tuple[int, ...]] = (9, 18, 27)
    has_scale: ClassVar[bool] = False

    def assemble(self, parts: Mapping[str, Any], *, settings: Mapping[str, Any]) -> Any:
        """Return the pipeline, distilled or not."""
        return diffusers.Flux2KleinPipeline(
            **parts, is_distilled=bool(settings.get("is_distilled", False))
        )

    def prepare_tokenizer(self, tokenizer: Any, *, part: str, denoiser: Any) -> Any:
        """Return a tokenizer that puts captions in a user's message, and an empty thought after
        it."""
        template = user_message(tokenizer, is_thinking=False)
        return ChatTokenizer(
            tokenizer, template=template, length=LENGTH, padding_side=tokenizer.padding_side
        )

    def has_unconditional(self, model: "Diffusion | Skeleton") -> bool:
        """Return whether it is not distilled."""
        return not model.settings.get("is_distilled", False)


def instructed(processor: Any) -> Template:
    """Return the template of a user's message to Mistral 3, after the pipeline's instruction."""

    def template(caption: str) -> str:
        return processor.apply_chat_template(format_input([caption]), tokenize=False)[0]

    return template


def places_of(height: int, width: int, length: int) -> torch.Tensor:
    """Return the position of every token: 0, its line and its column, its place in a text."""
    axes = (torch.arange(1), torch.arange(height), torch.arange(width), torch.arange(length))
    return torch.cartesian_prod(*axes)


def fused_sites(path: str, block: Any, layer: int, *, is_last: bool) -> Iterator[NetworkSite]:
    """Yield the components of a single block, each as its image span and its text span: the two
    halves of the output projection's input, of which one module computes both, the heads in it,
    and the streams. Nothing reads the text after the last block."""
    spans = Spans(image=slice(LENGTH, None), text=slice(0, LENGTH), is_text_dead=is_last)
    attention, attended = block.attn, block.attn.inner_dim
    spot = HookPoint(attention.to_out, Side.INPUT)
    mlp, joint = image_and_text(f"{path}.mlp"), image_and_text(f"{path}.attn")
    half: dict[str, Any] = {"module": attention, "share": 2}
    yield from spans.both(mlp, spot, FEED, layer, channels=slice(attended, None), **half)
    heads = {
        "projection": attention.to_out,
        "heads": attention.heads,
        "width": attention.head_dim,
    }
    yield from spans.both(joint, spot, JOINT, layer, channels=slice(attended), heads=heads, **half)
    yield from spans.both(streams(path), HookPoint(block), STREAMS, layer)
