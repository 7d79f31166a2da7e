"""The edit of a transformer's text projection: python -m bench.editing.transformer.

FLUX.1's `context_embedder`, 4096 inputs wide, behind one layer of T5 as wide as T5-XXL's, all with
random weights; texts are cut to `--tokens`. The sums over general captions, which a model needs
once, the keys of concepts and solving are timed apart, next to the procedure of UCE for FLUX
(Gandikota et al. 2024, equation 7), written from its equation: one key a concept, at the last word,
in float32, W = (sum v k^T + lambda W0) (sum k k^T + lambda I)^-1 with
lambda 0.5, where v is the projection's whole output W0 k* + b. The layer adds b once more. Printed
for both: how far the edited layer's output at a concept's key is from the replacement's, as a share
of the latter's norm, for a bias as large as the outputs; solves are of keys drawn at random, one a
concept and `--keys` a concept for ours.
"""

import argparse
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from bench.editing.speed import concepts_of
from engine.editing.closed_form import solve_changes, sums_of
from engine.editing.covariance import computed_sums
from engine.editing.solve import solve_edit
from engine.model.device import process_device
from engine.model.families.joint_attention import Flux
from engine.model.model import Diffusion
from engine.model.opening import from_pipeline
from engine.model.tokens import find_subjects
from engine.model.vocabulary import Phrasebook
from schemas.caption import Caption
from schemas.concept import Concept
from schemas.edit_settings import EditSettings
from tests.models.transformers import build_flux

LAYER = "transformer.context_embedder"
WIDTH, OUTPUTS = 4096, 3072
T5_LAYER: dict[str, Any] = {"d_model": WIDTH, "d_kv": 64, "num_heads": 64, "d_ff": 10240}
LAMBDA = 0.5
RIDGE = 1e-2


def build(tokens: int) -> Diffusion:
    """Return the model, whose denoiser is tiny except for the projection: no edit runs it."""
    pipeline = build_flux(guidance_embeds=False)
    own = pipeline.text_encoder_2.config
    config = T5Config(**{**own.to_dict(), **T5_LAYER, "num_layers": 1})
    pipeline.text_encoder_2 = T5EncoderModel(config).eval()
    clip = CLIPTextConfig(
        **{**pipeline.text_encoder.config.to_dict(), "max_position_embeddings": tokens}
    )
    pipeline.text_encoder = CLIPTextModel(clip).eval()
    pipeline.transformer.context_embedder = nn.Linear(WIDTH, OUTPUTS)
    model = from_pipeline(
        pipeline, name="flux-random", family=Flux(), device=process_device(), dtype=torch.float32
    )
    for encoder in model.encoders:
        encoder.tokenizer.model_max_length = tokens
    return model


@torch.inference_mode()
def published_keys(
    model: Diffusion, concepts: Sequence[Concept]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the keys of concepts and of their replacements, `_KD` each: T5's output at the last
    word."""
    encoder = model.encoders[1]
    keys: list[list[torch.Tensor]] = [[], []]
    for concept in concepts:
        for side, text in enumerate((concept.concept, concept.replacement_text)):
            caption = Caption(caption=text, subject=text, attribute="object")
            ids_1L, (span,) = find_subjects(encoder.tokenizer, [caption])
            keys[side].append(encoder.module(ids_1L)[0][0, span.last])
    return torch.stack(keys[0]), torch.stack(keys[1])


def published_weight(
    weight_ED: torch.Tensor, bias_E: torch.Tensor, key_KD: torch.Tensor, new_KD: torch.Tensor
) -> torch.Tensor:
    """Return UCE's edited weight, whose targets hold the bias."""
    value_KE = new_KD @ weight_ED.T + bias_E
    system_DD = key_KD.T @ key_KD + LAMBDA * torch.eye(key_KD.shape[1])
    return (value_KE.T @ key_KD + LAMBDA * weight_ED) @ torch.inverse(system_DD)


def our_weight(weight_ED: torch.Tensor, key_KD: torch.Tensor, new_KD: torch.Tensor) -> torch.Tensor:
    """Return our solution for the same keys, every one weighted alike."""
    key_KD, new_KD, weight_ED = key_KD.double(), new_KD.double(), weight_ED.double()
    change_KE = (new_KD - key_KD) @ weight_ED.T
    sums = sums_of(key_KD, {LAYER: change_KE}, torch.ones(len(key_KD), dtype=torch.float64))
    return weight_ED + solve_changes(sums, ridge=RIDGE)[LAYER]


def solves(count: int, keys: int) -> str:
    """Return a line: seconds of both solves of so many concepts, and what each leaves undone."""
    generator = torch.Generator().manual_seed(count)
    weight_ED = torch.randn(OUTPUTS, WIDTH, generator=generator) / WIDTH**0.5
    bias_E = torch.randn(OUTPUTS, generator=generator)
    drawn = torch.randn(2, count * keys, WIDTH, generator=generator)
    start = time.perf_counter()
    ours = our_weight(weight_ED, *drawn)
    ours_s = time.perf_counter() - start
    start = time.perf_counter()
    theirs = published_weight(weight_ED, bias_E, *drawn[:, :count])
    theirs_s = time.perf_counter() - start
    left = [
        _left(weight_ED, bias_E, edited.float(), *drawn[:, :count]) for edited in (ours, theirs)
    ]
    return (
        f"{count} concepts: ours {ours_s:.2f} s ({count * keys} keys), UCE {theirs_s:.2f} s "
        f"({count} keys); left of the change: ours {left[0]:.3f}, UCE {left[1]:.3f}"
    )


def _left(
    weight_ED: torch.Tensor,
    bias_E: torch.Tensor,
    edited_ED: torch.Tensor,
    key_KD: torch.Tensor,
    new_KD: torch.Tensor,
) -> float:
    """Return the mean distance of the edited layer's output from the replacement's, as a share of
    the latter's norm."""
    wanted_KE = new_KD @ weight_ED.T + bias_E
    off_KE = key_KD @ edited_ED.T + bias_E - wanted_KE
    return float((off_KE.norm(dim=1) / wanted_KE.norm(dim=1)).mean())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--solves", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--keys", type=int, default=4, help="random keys a concept of our solve")
    options = parser.parse_args()
    for count in options.solves:
        print(solves(count, options.keys), flush=True)
    model = build(options.tokens)
    settings = EditSettings(components=(LAYER,))
    start = time.perf_counter()
    general = {LAYER: computed_sums(model, LAYER, Phrasebook())}
    seconds = time.perf_counter() - start
    print(f"once for a model: {seconds:.1f} s for {general[LAYER].keys} general keys", flush=True)
    for count in options.counts:
        concepts = concepts_of(count)
        solved = solve_edit(model, concepts, book=Phrasebook(), settings=settings, general=general)
        start = time.perf_counter()
        published_keys(model, concepts)
        theirs = time.perf_counter() - start
        print(
            f"{count} concepts: reading keys {solved.key_seconds:.2f} s for {solved.key_pairs} "
            f"pairs, UCE {theirs:.2f} s for {count} pairs; our solve "
            f"{solved.solve_seconds:.2f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
