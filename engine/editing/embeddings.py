"""Token embeddings of concepts, moved to those of their replacements before anything is solved.

Which embedding a text reads is a one-hot key: moving one changes no text without its token by a
bit, and the least-squares solution is a mean. So each token of a concept becomes the weighted mean
of the embeddings of the tokens that face it in the replacements' prompts, subjects aligned at their
last tokens. Tokens that a kept prompt or a replacement says stay; what they leave undone is solved
for by the components that are edited. Only CLIP's embeddings move.

Shapes: V tokens, T positions of a prompt, D width (suffixes `_VD`, `_T`, `_D`).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from engine.editing.delta import weights_of
from engine.editing.edit_prompts import EditPrompts
from engine.editing.first_layer import is_clip
from engine.model.model import Diffusion, token_embedding
from engine.model.tokens import find_subjects
from schemas.caption import Caption

TABLE = ".token_embedding.weight"
"""End of the public name of CLIP's token embeddings."""


def moves_tokens(names: Iterable[str]) -> bool:
    """Return whether token embeddings are among weights, by their public names."""
    return any(name.endswith(TABLE) for name in names)


@torch.no_grad()
def moved_embeddings(model: Diffusion, said: EditPrompts) -> dict[str, torch.Tensor]:
    """Return the embeddings of the CLIP encoders in which a token moves, by public name.

    PlanError: a prompt does not fit a tokenizer.
    """
    names = {id(parameter): name for name, parameter in weights_of(model).items()}
    moved: dict[str, torch.Tensor] = {}
    for encoder in model.encoders:
        if not is_clip(encoder.module):
            continue
        table_VD = token_embedding(encoder.module).weight
        faced = facing_tokens(encoder.tokenizer, said)
        if faced:
            moved[names[id(table_VD)]] = _with_means(table_VD.detach(), faced)
    return moved


def facing_tokens(tokenizer: Any, said: EditPrompts) -> dict[int, dict[int, float]]:
    """Return, for each token that moves, the tokens that it faces with their weights."""
    sources, spans = find_subjects(tokenizer, [pair.source for pair in said.pairs])
    targets, facing_spans = find_subjects(tokenizer, [pair.replacement for pair in said.pairs])
    kept = [*said.general, *said.further, *said.exact]
    fixed = {*targets.flatten().tolist(), *_tokens(tokenizer, kept)}
    faced: dict[int, dict[int, float]] = {}
    for pair, source_T, span, target_T, facing in zip(
        said.pairs, sources, spans, targets, facing_spans, strict=True
    ):
        tokens = source_T[span.start : span.stop].tolist()
        others = target_T[facing.start : facing.stop].tolist()
        for back, token in enumerate(reversed(tokens)):
            if token not in fixed:
                other = others[max(len(others) - 1 - back, 0)]
                weights = faced.setdefault(token, {})
                weights[other] = weights.get(other, 0.0) + pair.weight
    return faced


def _tokens(tokenizer: Any, captions: Sequence[Caption]) -> set[int]:
    return set(find_subjects(tokenizer, captions)[0].flatten().tolist()) if captions else set()


def _with_means(table_VD: torch.Tensor, faced: Mapping[int, Mapping[int, float]]) -> torch.Tensor:
    """Return the embeddings with each token's replaced by the mean of those that it faces."""
    moved_VD = table_VD.clone()
    for token, others in faced.items():
        weight = torch.tensor(list(others.values()), dtype=torch.float64)
        mean_D = (weight / weight.sum()) @ table_VD[list(others)].cpu().double()
        moved_VD[token] = mean_D.to(moved_VD)
    return moved_VD
