"""Guidance of a model: on a negative prompt, embedded, or none."""

from engine.model.model import Diffusion, Skeleton
from schemas.errors import PlanError
from schemas.numerics import Numerics


def is_guided(model: Diffusion | Skeleton, numerics: Numerics) -> bool:
    """Return whether the denoiser runs on the negative prompt too: twice for every row.

    It does not at guidance 1, nor where the denoiser embeds the guidance scale or was distilled to
    none.
    """
    return numerics.guidance > 1 and model.family.has_unconditional(model)


def check_guidance(model: Diffusion | Skeleton, numerics: Numerics) -> None:
    """Raise PlanError if the model would ignore the guidance scale or the negative prompt."""
    family, scale = model.family, numerics.guidance
    has_unconditional = family.has_unconditional(model)
    if scale != 1 and not has_unconditional and not family.embeds_guidance(model.denoiser):
        raise PlanError(
            f"guidance {scale:g}: model {model.name!r} draws without guidance and would ignore it: "
            "give --guidance 1, or leave it out"
        )
    if numerics.negative_prompt and not is_guided(model, numerics):
        why = (
            "it is read at guidance above 1 only"
            if has_unconditional
            else "it reads no negative prompt"
        )
        raise PlanError(
            f"negative prompt {numerics.negative_prompt!r}: model {model.name!r} would ignore it, "
            f"{why}: leave out --negative-prompt"
        )
