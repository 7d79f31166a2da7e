"""Settings of a pipeline's parts that change an image: honored, or refused by name.

A network's class honors the network's own settings. The settings listed here are read by the
pipeline's code, which dqf's sampler replaces (docs/settings.md has the table).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from math import isfinite
from typing import Any

from engine.model.weight_files import PartError
from schemas.printable import shown

MOST_CELLS = 4096
"""Cells along a side of a model's own latents; published models have up to 256."""
MOST_ROWS = 4096
"""Text rows of T5; published models read up to 512."""
LEAST_TOKENS = 3
"""A caption has a start token, a token and an end."""

Allowed = Mapping[tuple[str, str], tuple[object, ...]]
"""Values of a part's setting that are honored, the first being its default."""

LATENT: Allowed = {
    ("unet", "class_embed_type"): (None,),
    ("unet", "num_class_embeds"): (None,),
    ("unet", "addition_embed_type"): (None, "text"),
    ("unet", "encoder_hid_dim_type"): (None, "text_proj"),
    ("vae", "out_channels"): (3,),
}
"""Settings of pipelines whose UNet works on a VAE's latents and reads only text rows."""


def _is_finite(value: object) -> bool:
    return type(value) in (int, float) and isfinite(value)  # pyright: ignore[reportArgumentType]


def _is_count(value: object, *, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


def _is_size(value: object) -> bool:
    sides = value if isinstance(value, list | tuple) else [value, value]
    return len(sides) == 2 and all(_is_count(n, most=MOST_CELLS) and n for n in sides)


SIZE = (_is_size, f"a side of a latent, of 1 to {MOST_CELLS} cells, or its height and width")
NUMBERS: Mapping[tuple[str, str], tuple[Callable[[Any], bool], str]] = {
    ("vae", "scaling_factor"): (lambda v: _is_finite(v) and v != 0, "a number other than 0"),
    ("vae", "shift_factor"): (lambda v: v is None or _is_finite(v), "a number"),
    ("vae", "batch_norm_eps"): (lambda v: _is_finite(v) and v >= 0, "a number of at least 0"),
    ("unet", "sample_size"): SIZE,
    ("transformer", "sample_size"): SIZE,
    ("transformer", "_max_sequence_length"): (
        lambda v: _is_count(v, most=MOST_ROWS), f"a number of text rows, at most {MOST_ROWS}"
    ),
}  # fmt: skip
"""Settings that the sampler computes with: whether a value can be used, and what can."""


def check_numbers(networks: Mapping[str, Any]) -> None:
    """Raise PartError if a setting that the sampler computes with is not a number that it can
    use."""
    for (part, setting), (fits, wanted) in NUMBERS.items():
        config = networks[part].config if part in networks else {}
        if setting in config and not fits(config[setting]):
            value = shown(config[setting])
            raise PartError(f"its {part} has the setting {setting} = {value}, not {wanted}")


def refuse_settings(networks: Mapping[str, Any], allowed: Allowed) -> None:
    """Raise PartError if a part's config has a value that dqf does not honor."""
    for (part, setting), values in allowed.items():
        value = getattr(networks[part].config, setting, values[0])
        if value not in values:
            raise PartError(f"its {part} has the setting {setting} = {value!r}, which dqf lacks")


def check_channels(networks: Mapping[str, Any]) -> None:
    """Raise PartError if the UNet reads or gives other channels than the VAE's latents have."""
    unet, latent = networks["unet"].config, networks["vae"].config.latent_channels
    for setting in ("in_channels", "out_channels"):
        value = unet[setting]
        if value != latent:
            raise PartError(
                f"its unet has {setting} = {value} where its vae has latent_channels = {latent}: "
                "dqf opens no inpainting and no image-to-image models"
            )


def check_text(networks: Mapping[str, Any], encoders: Sequence[str]) -> None:
    """Raise PartError if the UNet reads text rows of another width than the encoders give."""
    config = networks["unet"].config
    wanted = config.encoder_hid_dim or config.cross_attention_dim
    given = sum(_width(networks[encoder].config) for encoder in encoders)
    if isinstance(wanted, int) and wanted != given:
        raise PartError(
            f"its unet reads text of width {wanted} (cross_attention_dim or encoder_hid_dim) and "
            f"its text encoders give {given}"
        )


def check_tokenizer(
    tokenizer: Any,
    encoder: Any,
    part: str,
    *,
    is_masked: bool = False,
    sides: Collection[str] = ("right",),
) -> None:
    """Raise PartError if a tokenizer gives ids or positions that its encoder does not have.

    `is_masked`: the encoder gets a mask of padding, made of the encoder's id of it. `sides`: where
    the tokenizer may pad.
    """
    config = encoder.config.get_text_config()  # Qwen2.5-VL and Mistral have an image's besides
    if len(tokenizer) > config.vocab_size:
        raise PartError(
            f"its {part} has {len(tokenizer)} tokens and the text encoder embeds "
            f"{config.vocab_size}"
        )
    length = tokenizer.model_max_length
    if not isinstance(length, int) or length < LEAST_TOKENS:
        raise PartError(f"its {part} has model_max_length = {length!r}, not a number of tokens")
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and length > positions:
        raise PartError(
            f"its {part} has model_max_length = {length} and the text encoder {positions} positions"
        )
    if tokenizer.pad_token_id is None:
        raise PartError(f"its {part} has no pad_token")
    if tokenizer.padding_side not in sides:
        raise PartError(f"its {part} has padding_side = {tokenizer.padding_side!r}, not 'right'")
    if config.model_type == "clip_text_model" and not isinstance(config.eos_token_id, int):
        end = shown(config.eos_token_id)
        raise PartError(f"its text encoder has eos_token_id = {end}, not the id of a token")
    pad, own = tokenizer.pad_token_id, config.pad_token_id
    if is_masked and (pad != own or pad == tokenizer.eos_token_id):
        raise PartError(
            f"its {part} pads with {tokenizer.pad_token!r}, token {pad}, and its text encoder has "
            f"pad_token_id = {own}: they must agree on a token that ends no text"
        )


def check_statistics(vae: Any, *, channels: int) -> None:
    """Raise PartError if a VAE's config does not have a mean and deviation of each channel."""
    for setting in ("latents_mean", "latents_std"):
        values = vae[setting]
        if not isinstance(values, list | tuple) or not all(map(_is_finite, values)):
            raise PartError(f"its vae has the setting {setting} = {shown(values)}, not numbers")
        if len(values) != channels:
            raise PartError(f"its vae has {setting} of {len(values)} channels, not {channels}")


def _width(config: Any) -> int:
    return getattr(config, "d_model", None) or config.hidden_size
