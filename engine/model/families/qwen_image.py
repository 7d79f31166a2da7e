"""Qwen-Image: sixty joint blocks, and the last states of Qwen2.5-VL as text rows.

The pipeline puts an instruction before the caption and drops the states of its 34 tokens; what ends
the message after the caption becomes text rows. The guided prediction gets back the length that
the caption's has in each image token.

Shapes: R rows, L token positions, D text width, C channels, h x w latent.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
from transformers import Qwen2_5_VLForConditionalGeneration

from engine.model.conditioning import Conditioning, TextPlace
from engine.model.families.joint_attention import joint_sites, packed, unpacked
from engine.model.families.language_models import (
    ChatTokenizer,
    LanguageModelFamily,
    decoder_of,
    states_before,
    text_mask,
)
from engine.model.families.transformers import (
    check_width,
    dead_modulation,
    sigmas_and_shift,
)
from engine.model.model import from_minus_one
from engine.model.settings import Allowed, check_statistics, refuse_settings
from engine.model.sites import NetworkSite, whole
from engine.model.weight_files import PartError
from schemas.component import Kind

if TYPE_CHECKING:
    from engine.model.model import Diffusion, Skeleton

TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, "
    "quantity, text, spatial relationships of the objects and background:<|im_end|>\n"
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
"""`QwenImagePipeline.prompt_template_encode`; `{}` is the caption."""
DROPPED = 34
"""Positions at the start whose states the pipeline drops: those before the caption."""
LENGTH = 512
"""Text rows."""
PATCH = 2
"""Cells of a latent along a side of an image token."""
SETTINGS: Allowed = {
    ("vae", "input_channels"): (3,),
    ("transformer", "patch_size"): (PATCH,),
    ("transformer", "guidance_embeds"): (False,),
    ("transformer", "zero_cond_t"): (False,),
    ("transformer", "use_additional_t_cond"): (False,),
    ("transformer", "use_layer3d_rope"): (False,),
}


class QwenImage(LanguageModelFamily):
    """`QwenImagePipeline`; its `true_cfg_scale` is dqf's guidance scale."""

    pipeline = "QwenImagePipeline"
    own_cells = 128
    reads_padding = False
    networks = MappingProxyType(
        {
            "text_encoder": Qwen2_5_VLForConditionalGeneration,
            "transformer": QwenImageTransformer2DModel,
            "vae": AutoencoderKLQwenImage,
        }
    )

    def check_settings(self, networks: Mapping[str, Any]) -> None:
        """Refuse other channels, another width of text, and models that edit images."""
        refuse_settings(networks, SETTINGS)
        reads, vae = networks["transformer"].config, networks["vae"].config
        channels = vae.z_dim
        if (reads.in_channels, reads.out_channels) != (channels * PATCH**2, channels):
            raise PartError(
                f"its transformer has in_channels = {reads.in_channels} and out_channels = "
                f"{reads.out_channels} where its vae's latents of {channels} channels need "
                f"{channels * PATCH**2} and {channels}"
            )
        check_statistics(vae, channels=channels)
        width = networks["text_encoder"].config.get_text_config().hidden_size
        check_width(networks, "text_encoder", gives=width, reads=reads.joint_attention_dim)

    def length_of(self, part: str, denoiser: Any) -> int | None:
        """Return the positions of a caption in its template."""
        return LENGTH + DROPPED

    def prepare_tokenizer(self, tokenizer: Any, *, part: str, denoiser: Any) -> Any:
        """Return a tokenizer that puts captions into the template.

        PartError: the template has fewer tokens than are dropped.
        """
        prepared = ChatTokenizer(tokenizer, template=TEMPLATE.format, length=LENGTH + DROPPED)
        written = prepared.positions_before
        if written < DROPPED:
            raise PartError(
                f"its tokenizer writes the template before a caption in {written} tokens, of which "
                f"the pipeline drops {DROPPED}: captions would lose their first"
            )
        return prepared

    def encode(self, model: "Diffusion | Skeleton", ids: Sequence[torch.Tensor]) -> Conditioning:
        """Return the normed states after the last layer, and a mask of the tokens that are read."""
        (encoder,), (ids_RL,) = model.encoders, ids
        last = len(decoder_of(encoder).layers)
        (text_RLD,) = states_before(encoder, [last], lambda: self.run_encoder(encoder, ids_RL))
        mask_RL = text_mask(encoder, ids_RL)
        return Conditioning(
            text_RLD=text_RLD[:, DROPPED:].to(model.denoiser.dtype),
            mask_RL=None if mask_RL is None else mask_RL[:, DROPPED:],
            places=(TextPlace(skipped=DROPPED),),
        )

    def text_projection_rows(self, denoiser: Any, text_RLD: torch.Tensor) -> torch.Tensor:
        """Return the normed rows."""
        return denoiser.txt_norm(text_RLD)

    def sites(self, denoiser: Any) -> Iterator[NetworkSite]:
        """Yield the text's projection, the modulation, which is dead, and both sides of every
        block."""
        yield whole("txt_in", denoiser.txt_in, Kind.TEXT_PROJECTION, 0)
        yield dead_modulation("time_text_embed", denoiser.time_text_embed)
        blocks = denoiser.transformer_blocks
        for layer, block in enumerate(blocks):
            yield from joint_sites(
                f"transformer_blocks.{layer}",
                block,
                layer,
                feeds=("img_mlp", "txt_mlp"),
                is_last=layer == len(blocks) - 1,
            )

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
        transformer, rows = model.denoiser, len(x_RChw)
        height, width = x_RChw.shape[-2:]
        text_RLD, mask_RL = read_rows(cond)
        output_RTC = transformer(
            packed(x_RChw).to(transformer.dtype),
            timestep=t.expand(rows) / 1000,
            encoder_hidden_states=text_RLD,
            encoder_hidden_states_mask=mask_RL,
            img_shapes=[[(1, height // PATCH, width // PATCH)]] * rows,
            return_dict=False,
        )[0]
        return unpacked(output_RTC, height, width)

    def guide(
        self, uncond: torch.Tensor, cond: torch.Tensor, *, guidance: float, channels: int
    ) -> torch.Tensor:
        """Return the guided prediction with the caption's norm over each image token."""
        guided = super().guide(uncond, cond, guidance=guidance, channels=channels)
        guided_RTC, cond_RTC = packed(guided), packed(cond)
        norm_RT1, wanted_RT1 = (h.norm(dim=-1, keepdim=True) for h in (guided_RTC, cond_RTC))
        return unpacked(guided_RTC * (wanted_RT1 / norm_RT1), *guided.shape[-2:])

    def schedule(self, scheduler: Any, *, steps: int, tokens: int) -> dict[str, Any]:
        """Return sigmas from 1 to 1 / steps, and their shift at the image's size."""
        return sigmas_and_shift(scheduler, steps=steps, tokens=tokens)

    def decode(self, model: "Diffusion", x_RChw: torch.Tensor) -> torch.Tensor:
        """Return images_RCHW in [0, 1] of latents that the VAE's config says to standardize."""
        config = model.vae.config
        mean, std = (
            x_RChw.new_tensor(values)[:, None, None]
            for values in (config.latents_mean, config.latents_std)
        )
        frames = (x_RChw * std + mean).unsqueeze(2)
        images_RCHW = model.vae.decode(frames, return_dict=False)[0][:, :, 0]
        return from_minus_one(images_RCHW)

    def vae_factor(self, vae: Any) -> int:
        """Return the pixels of one latent cell along a side."""
        return 2 ** len(vae.config.temperal_downsample)

    def latent_channels(self, denoiser: Any) -> int:
        """Return the channels of a latent, of which the transformer reads 2 x 2 as one token."""
        return denoiser.config.in_channels // PATCH**2


def read_rows(cond: Conditioning) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the text rows up to the longest caption's last, and a mask where one is shorter."""
    if cond.mask_RL is None:
        return cond.text_RLD, None
    mask_RL = cond.mask_RL[:, : int(cond.mask_RL.sum(1).max())].bool()
    return cond.text_RLD[:, : mask_RL.shape[1]], None if mask_RL.all() else mask_RL
