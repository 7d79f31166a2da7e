"""Z-Image and Z-Image-Turbo: one sequence of image and text, after refiners of each alone.

The captions of a batch, each as long as it is, are one list, whose rows a projection takes in
together; from the first refiner of the text on each caption is a row, padded to a multiple of 32
tokens, which are attended. The refiners of the text know no timestep: what they return is the same
at every step. In the layers the image's tokens come first, padded alike.

Shapes: R rows, L token positions, D text width, C channels, h x w latent, T tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKL, ZImageTransformer2DModel
from transformers import Qwen3Model

from engine.model.conditioning import Conditioning
from engine.model.families.language_models import (
    ChatTokenizer,
    LanguageModelFamily,
    decoder_of,
    states_before,
    text_mask,
    user_message,
)
from engine.model.families.transformers import (
    check_latent,
    check_width,
    dead_modulation,
    sigmas_and_shift,
    with_shift,
)
from engine.model.hooks import HookPoint, Side
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
    with_heads,
)
from engine.model.weight_files import PartError
from schemas.component import Kind

if TYPE_CHECKING:
    from engine.model.model import Diffusion, Skeleton

LENGTH = 512
"""Token positions of a caption in its template."""
PATCH = 2
"""Cells of a latent along a side of an image token."""
MULTIPLE = 32
"""Image tokens and text tokens are padded to a multiple of these (`SEQ_MULTI_OF`)."""
SETTINGS: Allowed = {("vae", "out_channels"): (3,), ("transformer", "siglip_feat_dim"): (None,)}


class ZImage(LanguageModelFamily):
    """`ZImagePipeline`; its guidance scale is s in cond + s (cond - uncond), 1 less than dqf's."""

    pipeline = "ZImagePipeline"
    own_cells = 128
    reads_padding = False
    networks = MappingProxyType(
        {
            "text_encoder": Qwen3Model,
            "transformer": ZImageTransformer2DModel,
            "vae": AutoencoderKL,
        }
    )

    def check_settings(self, networks: Mapping[str, Any]) -> None:
        """Refuse another width of text, other patches, no refiner and too few positions."""
        refuse_settings(networks, SETTINGS)
        reads = networks["transformer"].config
        check_latent(networks["vae"], reads=reads.in_channels)
        width = networks["text_encoder"].config.hidden_size
        check_width(networks, "text_encoder", gives=width, reads=reads.cap_feat_dim)
        for setting, wanted in (("all_patch_size", PATCH), ("all_f_patch_size", 1)):
            if wanted not in reads[setting]:
                raise PartError(f"its transformer lacks {wanted} in {setting}, which is read")
        if reads.n_refiner_layers < 1:
            raise PartError(
                "its transformer has n_refiner_layers = 0: no place has captions as rows"
            )
        if reads.axes_lens[0] < LENGTH + 2:
            raise PartError(
                f"its transformer has {reads.axes_lens[0]} positions for captions (axes_lens) "
                f"where the pipeline needs {LENGTH + 2}"
            )

    def length_of(self, part: str, denoiser: Any) -> int | None:
        """Return the pipeline's length."""
        return LENGTH

    def prepare_tokenizer(self, tokenizer: Any, *, part: str, denoiser: Any) -> Any:
        """Return a tokenizer that puts captions in a user's message."""
        template = user_message(tokenizer, is_thinking=True)
        return ChatTokenizer(tokenizer, template=template, length=LENGTH)

    def read_layers(self, part: str, layers: int) -> int:
        """Return all but the last."""
        return layers - 1

    def encode(self, model: "Diffusion | Skeleton", ids: Sequence[torch.Tensor]) -> Conditioning:
        """Return the states before the last layer, and a mask of the tokens that are rows."""
        (encoder,), (ids_RL,) = model.encoders, ids
        last = len(decoder_of(encoder).layers) - 1
        (text_RLD,) = states_before(encoder, [last], lambda: self.run_encoder(encoder, ids_RL))
        return Conditioning(
            text_RLD=text_RLD.to(model.denoiser.dtype), mask_RL=text_mask(encoder, ids_RL)
        )

    def text_projection_rows(self, denoiser: Any, text_RLD: torch.Tensor) -> torch.Tensor:
        """Return the normed rows."""
        return denoiser.cap_embedder[0](text_RLD)

    def sites(self, denoiser: Any) -> Iterator[NetworkSite]:
        """Yield the modulation, which is dead, the image's refiners, the text's projection, the
        text's refiners, and both spans of every layer.

        Whatever a batch's captions are, the projection's component is what the first refiner reads.
        """
        yield dead_modulation("t_embedder", denoiser.t_embedder)
        image, text = denoiser.noise_refiner, denoiser.context_refiner
        for layer, block in enumerate(image):
            yield from refiner_sites(f"noise_refiner.{layer}", block, layer, is_text=False)
        yield NetworkSite(
            path="cap_embedder.1",
            module=denoiser.cap_embedder[1],
            kind=Kind.TEXT_PROJECTION,
            layer=0,
            spot=HookPoint(text[0], Side.INPUT),
        )
        for layer, block in enumerate(text):
            yield from refiner_sites(f"context_refiner.{layer}", block, layer, is_text=True)
        for n, block in enumerate(denoiser.layers):
            is_last = n == len(denoiser.layers) - 1
            yield from layer_sites(f"layers.{n}", block, len(text) + n, is_last=is_last)

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
        """Return the negative of the transformer's output, which is given time in reverse."""
        transformer = model.denoiser
        images = list(x_RChw.to(transformer.dtype).unsqueeze(2))
        time_R = ((1000 - t) / 1000).expand(len(images))
        output = transformer(images, time_R, captions_of(cond), return_dict=False)[0]
        return -torch.stack(output).squeeze(2)

    def schedule(self, scheduler: Any, *, steps: int, tokens: int) -> dict[str, Any]:
        """Return sigmas from 1 to 1 / steps, and their shift at the image's size."""
        return sigmas_and_shift(scheduler, steps=steps, tokens=tokens)

    def decode(self, model: "Diffusion", x_RChw: torch.Tensor) -> torch.Tensor:
        """Return images_RCHW in [0, 1] of latents that the VAE's config says to shift."""
        return super().decode(model, with_shift(model.vae, x_RChw))

    def patch_size(self, denoiser: Any) -> int:
        """Return the cells along a side of an image token."""
        return PATCH

    def most_cells(self, denoiser: Any) -> int:
        """Return the positions of the shorter side, in cells."""
        return min(denoiser.config.axes_lens[1:]) * PATCH


def captions_of(cond: Conditioning) -> list[torch.Tensor]:
    """Return each row's tokens that are read, T x D."""
    if cond.mask_RL is None:
        return list(cond.text_RLD)
    lengths = cond.mask_RL.sum(1).tolist()
    return [row_LD[:length] for row_LD, length in zip(cond.text_RLD, lengths, strict=True)]


def image_span(cells: int) -> slice:
    """Return the image's tokens in a layer at a latent of so many cells, padding included."""
    return slice(0, -(-(cells // PATCH**2) // MULTIPLE) * MULTIPLE)


def text_span(cells: int) -> slice:
    """Return the text's tokens in a layer at a latent of so many cells, padding included."""
    return slice(image_span(cells).stop, None)


def refiner_sites(path: str, block: Any, layer: int, *, is_text: bool) -> Iterator[NetworkSite]:
    """Yield the components of a block that sees the image alone, or the text alone."""
    attention, feed_forward, stream = (
        (Kind.SELF_ATTENTION_TEXT, Kind.FEED_FORWARD_TEXT, Kind.STREAM_TEXT)
        if is_text
        else (Kind.SELF_ATTENTION, Kind.FEED_FORWARD, Kind.STREAM_IMAGE)
    )
    yield from with_heads(f"{path}.attention", block.attention, attention, layer)
    yield whole(f"{path}.feed_forward", block.feed_forward, feed_forward, layer)
    yield whole(f"{path}.{stream}", block, stream, layer)


def layer_sites(path: str, block: Any, layer: int, *, is_last: bool) -> Iterator[NetworkSite]:
    """Yield the components of a layer, each as its image span and its text span; nothing reads the
    text after the last layer."""
    spans, attention = (
        Spans(image=image_span, text=text_span, is_text_dead=is_last),
        block.attention,
    )
    yield from spans.both(
        image_and_text(f"{path}.attention"),
        HookPoint(attention),
        JOINT,
        layer,
        heads={"projection": attention.to_out[0], "heads": attention.heads},
    )
    feed = image_and_text(f"{path}.feed_forward")
    yield from spans.both(feed, HookPoint(block.feed_forward), FEED, layer)
    yield from spans.both(streams(path), HookPoint(block), STREAMS, layer)
