"""The steps, the guidance scale and the noise of a model where none are given.

No torch: a command's defaults are known before a model is opened.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from engine.files import is_file
from engine.model.hub import config_folder
from engine.model.registry import GUIDANCE, STEPS, built_in
from engine.model.weight_files import PartError, read_json
from schemas.errors import ModelUnavailable
from schemas.numerics import DEFAULT_NOISE


class Sampling(NamedTuple):
    """Denoising steps and guidance scale."""

    steps: int
    guidance: float


PIPELINES: Mapping[str, Sampling] = MappingProxyType(
    {
        "PixArtAlphaPipeline": Sampling(20, 4.5),
        "PixArtSigmaPipeline": Sampling(20, 4.5),
        "SanaPipeline": Sampling(20, 4.5),
        "SanaSprintPipeline": Sampling(2, 4.5),
        "StableDiffusion3Pipeline": Sampling(28, 7.0),
        "FluxPipeline": Sampling(28, 3.5),
        "ZImagePipeline": Sampling(50, 6.0),
        "QwenImagePipeline": Sampling(50, 4.0),
        "Flux2Pipeline": Sampling(50, 4.0),
        "Flux2KleinPipeline": Sampling(50, 4.0),
    }
)
"""Defaults of the pipelines of transformers; others have those of Stable Diffusion."""
DISTILLED = Sampling(4, 1.0)
"""FLUX.1 schnell, a `FluxPipeline` whose transformer embeds no guidance scale, and a FLUX.2 klein
whose index says that it is distilled."""


def default_sampling(model: str) -> Sampling:
    """Return the steps and the guidance scale used for a model when none are given."""
    known = built_in(model)
    if known is not None:
        return Sampling(known.steps, known.guidance)
    try:
        folder = config_folder(model)
        index = read_json(folder / "model_index.json")
        kind, config = index.get("_class_name"), folder / "transformer" / "config.json"
        is_schnell = (
            kind == "FluxPipeline"
            and is_file(config)
            and not read_json(config).get("guidance_embeds", False)
        )
    except (ModelUnavailable, PartError):  # the check of the model says why
        return Sampling(STEPS, GUIDANCE)
    is_distilled = kind == "Flux2KleinPipeline" and bool(index.get("is_distilled"))
    return (
        DISTILLED
        if is_schnell or is_distilled
        else PIPELINES.get(str(kind), Sampling(STEPS, GUIDANCE))
    )


def default_noise(model: str) -> float:
    """Return the noise that corrupts a subject when none is given, in standard deviations of the
    embeddings."""
    known = built_in(model)
    return DEFAULT_NOISE if known is None else known.noise
