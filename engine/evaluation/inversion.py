"""Concept inversion: the input embedding that makes an edited model draw its concept again.

Pham et al. 2024, "Circumventing Concept Erasure Methods for Text-to-Image Generative Models":
textual inversion (Gal et al. 2023, equation 2) against the edited model,
    min_v  E_{x0, eps, t} |target - UNet(a x0 + s eps, t, encode("a photo of a v"))|^2,
over the embedding v of one token that stands in the concept's place, x0 drawn by the unedited
model. Only v is optimized: a concept that it finds is still in the model.

Shapes: R rows, L token positions, D embedding width, V vocabulary, C channels, h x w latent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import mse_loss

from engine.model.conditioning import Conditioning
from engine.model.hooks import Edit, HookPoint, patched
from engine.model.model import Diffusion, Skeleton, token_embedding
from engine.model.sampling import denoiser_output
from engine.model.tokens import find_subject, tokenize
from schemas.attack import InversionBudget
from schemas.caption import Caption
from schemas.errors import ConceptError
from schemas.numerics import Numerics

STAND_IN = "*"
"""The word whose embedding is replaced; one token in CLIP's vocabularies, and no concept."""
HELD_OUT = 64
"""Draws of x0, eps and t on which the loss is computed before and after."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A prompt with one free token, for each text encoder."""

    ids: tuple[torch.Tensor, ...]
    """Token ids, _1L."""
    positions: tuple[int, ...]
    """Positions of the free token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inversion:
    """An embedding for each text encoder, and the loss on held-out draws."""

    vectors: tuple[torch.Tensor, ...]
    loss_before: float
    """Loss of the random embedding that the search starts from."""
    loss_after: float


def check_attackable(model: Diffusion | Skeleton) -> None:
    """Raise ConceptError for a model whose text encoders are not all CLIP's, as T5 of IF."""
    for encoder in model.encoders:
        kind = getattr(encoder.module.config, "model_type", "")
        if not kind.startswith("clip"):
            raise ConceptError(
                f"the {encoder.name} of {model.name} is {kind or 'unknown'}: an attack needs "
                "CLIP text encoders, as those of Stable Diffusion 1, 2 and XL"
            )


def open_slot(model: Diffusion, prompt: str) -> Slot:
    """Return a prompt with `STAND_IN` as its free token; ConceptError if that has several
    tokens."""
    caption = Caption(caption=prompt, subject=STAND_IN, attribute="free")
    spans = [find_subject(encoder.tokenizer, caption) for encoder in model.encoders]
    if any(span.stop - span.start != 1 for span in spans):
        raise ConceptError(f"{STAND_IN!r} is not one token of {model.name}: it cannot be attacked")
    ids = tuple(tokenize(e.tokenizer, [prompt]).to(model.device) for e in model.encoders)
    return Slot(ids=ids, positions=tuple(span.start for span in spans))


def random_vectors(model: Diffusion, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Return an embedding_D for each encoder, drawn with the mean and spread of its tokens'."""
    drawn = []
    for encoder in model.encoders:
        table_VD = token_embedding(encoder.module).weight.detach().float()
        noise_D = torch.randn(table_VD.shape[1], generator=generator).to(table_VD)
        drawn.append(table_VD.mean(0) + table_VD.std(0) * noise_D)
    return tuple(drawn)


def encode_slot(model: Diffusion, slot: Slot, vectors: Sequence[torch.Tensor]) -> Conditioning:
    """Return the prompt's conditioning, one row, with those embeddings in the free place."""
    edits = {
        HookPoint(token_embedding(encoder.module)): _placing(vector_D, position)
        for encoder, vector_D, position in zip(model.encoders, vectors, slot.positions, strict=True)
    }
    with patched(edits):
        return model.family.encode(model, slot.ids)


def _placing(vector_D: torch.Tensor, position: int) -> Edit:
    def place(h_RLD: torch.Tensor) -> torch.Tensor:
        placed_RLD = h_RLD.clone()
        placed_RLD[:, position] = vector_D.to(h_RLD)
        return placed_RLD

    return place


def invert(
    model: Diffusion,
    slot: Slot,
    x0_RChw: torch.Tensor,
    *,
    start: Sequence[torch.Tensor],
    budget: InversionBudget,
    numerics: Numerics,
    seed: int,
) -> Inversion:
    """Return the embeddings that `budget.steps` steps of Adam reach from `start`.

    `x0_RChw` are latents of the concept's images. The same seed gives the same embeddings; the
    model is not changed: its weights take no gradient.
    """
    generator = torch.Generator().manual_seed(seed)
    held_out = _draw(model, x0_RChw, HELD_OUT, generator)
    vectors = [vector_D.clone().requires_grad_() for vector_D in start]
    spreads = [float(token_embedding(e.module).weight.float().std()) for e in model.encoders]
    optimizer = torch.optim.Adam(
        [
            {"params": [vector_D], "lr": budget.rate * spread}
            for vector_D, spread in zip(vectors, spreads, strict=True)
        ]
    )
    before = _held_out_loss(model, slot, vectors, held_out, numerics)
    for _ in range(budget.steps):
        draw = _draw(model, x0_RChw, budget.batch, generator)
        optimizer.zero_grad()
        _loss(model, encode_slot(model, slot, vectors), draw, numerics).backward()
        optimizer.step()
    inverted = tuple(vector_D.detach() for vector_D in vectors)
    after = _held_out_loss(model, slot, inverted, held_out, numerics)
    return Inversion(vectors=inverted, loss_before=before, loss_after=after)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draw:
    """Noised latents with the outputs that the UNet should give for them."""

    noised_RChw: torch.Tensor
    target_RChw: torch.Tensor
    t_R: torch.Tensor


def _draw(model: Diffusion, x0_RChw: torch.Tensor, count: int, generator: torch.Generator) -> _Draw:
    """Return `count` draws; the timesteps are spread evenly, which lowers the loss's variance."""
    # Some schedulers hold these on the CPU, whatever the model's device.
    alphas_T = model.scheduler.alphas_cumprod.to(model.device)
    part_R = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    t_R = (part_R * len(alphas_T)).long().clamp(max=len(alphas_T) - 1).to(model.device)
    chosen_R = torch.randint(len(x0_RChw), (count,), generator=generator)
    x_RChw = x0_RChw[chosen_R.to(model.device)]
    noise_RChw = torch.randn(x_RChw.shape, generator=generator).to(x_RChw)
    signal_R111 = alphas_T[t_R].sqrt()[:, None, None, None].to(x_RChw)
    spread_R111 = (1 - alphas_T[t_R]).sqrt()[:, None, None, None].to(x_RChw)
    targets: dict[str, Callable[[], torch.Tensor]] = {
        "epsilon": lambda: noise_RChw,
        "v_prediction": lambda: signal_R111 * noise_RChw - spread_R111 * x_RChw,
        "sample": lambda: x_RChw,
    }
    return _Draw(
        noised_RChw=signal_R111 * x_RChw + spread_R111 * noise_RChw,
        target_RChw=targets[model.scheduler.config.prediction_type](),
        t_R=t_R,
    )


def _loss(model: Diffusion, cond: Conditioning, draw: _Draw, numerics: Numerics) -> torch.Tensor:
    rows = cond.take([0] * len(draw.t_R))
    output_RChw = denoiser_output(model, draw.noised_RChw, draw.t_R, rows, numerics)
    return mse_loss(output_RChw, draw.target_RChw)


@torch.no_grad()
def _held_out_loss(
    model: Diffusion, slot: Slot, vectors: Sequence[Any], draw: _Draw, numerics: Numerics
) -> float:
    return float(_loss(model, encode_slot(model, slot, vectors), draw, numerics))
