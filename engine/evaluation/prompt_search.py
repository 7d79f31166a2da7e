"""Greedy coordinate gradient: words whose encoding by an edited encoder comes nearest to a concept.

GCG (Zou et al. 2023, "Universal and Transferable Adversarial Attacks on Aligned Language Models",
algorithm 1), in text space as MMA-Diffusion has it (Yang et al. 2024, equation 2): K free tokens
stand in the concept's place, and their rows are to become those that the unedited encoder gives the
concept. One step: the loss's gradient at the free tokens' embeddings ranks every token of the
vocabulary at every place; random single replacements among the best are encoded; the best of them
is taken if it is better. Tokens of the concept, and candidates that spell it, never take part.

Shapes: R rows, L token positions, K free tokens, D embedding width, V vocabulary, P pooled width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from engine.model.conditioning import Conditioning
from engine.model.hooks import Edit, HookPoint, patched
from engine.model.model import Diffusion, token_embedding
from engine.model.tokens import find_subjects
from schemas.attack import SearchBudget
from schemas.caption import Caption
from schemas.concept import plain_text
from schemas.errors import ConceptError

ENCODED_TOGETHER = 64
"""Candidates that the text encoders read at once."""

Tokens = tuple[int, ...]
"""K free tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """The unedited model's encoding of a concept's prompt, from the last token of the concept on.

    `roles` are the rows of the concept's last token, of what follows up to the end-of-text token,
    and of the pads; each counts once, however many rows it has.
    """

    caption: Caption
    """The prompt, whose subject is the concept."""
    cond: Conditioning
    roles: tuple[slice, ...]
    """Relative to the concept's last token."""
    last: int
    """Position of the concept's last token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPrompt:
    """The best prompt of a search."""

    prompt: str
    distance_before: float
    """Distance of the random tokens that the search starts from; see `distance`."""
    distance_after: float


@torch.no_grad()
def read_goal(model: Diffusion, caption: Caption) -> Goal:
    """Return the goal that `model`, the unedited one, sets; ConceptError if tokenizers differ."""
    vocabularies = [encoder.tokenizer.get_vocab() for encoder in model.encoders]
    if any(vocabulary != vocabularies[0] for vocabulary in vocabularies):
        raise ConceptError(f"the text encoders of {model.name} read different tokens")
    _, (span,) = find_subjects(model.tokenizer, [caption])
    ahead = span.eos - span.last + 1
    return Goal(
        caption=caption,
        cond=model.family.encode(model, model.token_ids([caption.caption])),
        roles=(slice(0, 1), slice(1, ahead), slice(ahead, None)),
        last=span.last,
    )


def distance(cond: Conditioning, goal: Goal, *, last: int) -> torch.Tensor:
    """Return the distance of rows from the goal, _R: the mean over roles of |h - g|^2 / |g|^2.

    `last` is the position of the last free token, which is laid on the concept's last; SDXL's
    pooled embedding is one more role.
    """
    length = cond.text_RLD.shape[1] - max(last, goal.last)
    h_RLD = cond.text_RLD[:, last : last + length].float()
    g_LD = goal.cond.text_RLD[0, goal.last : goal.last + length].float()
    parts = [_relative(h_RLD[:, role].flatten(1), g_LD[role].flatten()) for role in goal.roles]
    if cond.pooled_RP is not None and goal.cond.pooled_RP is not None:
        parts.append(_relative(cond.pooled_RP.float(), goal.cond.pooled_RP[0].float()))
    return torch.stack(parts).mean(0)


def _relative(h_RX: torch.Tensor, g_X: torch.Tensor) -> torch.Tensor:
    return ((h_RX - g_X) ** 2).sum(1) / (g_X**2).sum().clamp(min=1e-12)


def banned_tokens(tokenizer: Any, concept: str) -> set[int]:
    """Return the tokens that no prompt against `concept` may hold: its own, and the special ones.

    Its own tokens are those of its tokenization and every token whose text holds one of its words.
    """
    words = plain_text(concept).split()
    concept_ids = set(tokenizer(concept, add_special_tokens=False).input_ids)
    vocabulary = tokenizer.get_vocab()
    spelled = {
        number
        for token, number in vocabulary.items()
        if any(word in plain_text(token.removesuffix("</w>")) for word in words)
    }
    return concept_ids | spelled | set(tokenizer.all_special_ids)


def search_prompt(
    model: Diffusion,
    goal: Goal,
    *,
    budget: SearchBudget,
    seed: int,
) -> FoundPrompt:
    """Return the nearest prompt that `model` reads `budget.steps` steps from a random start.

    The distance never rises from step to step; the same seed gives the same prompt.
    """
    search = _Search(model, goal, budget, torch.Generator().manual_seed(seed))
    tokens = search.start()
    first = value = float(search.distances([tokens])[0])
    for _ in range(budget.steps):
        candidates = search.candidates(tokens)
        if candidates:
            distance_R = search.distances(candidates)
            if float(distance_R.min()) < value:
                value, tokens = float(distance_R.min()), candidates[int(distance_R.argmin())]
    return FoundPrompt(prompt=search.prompt(tokens), distance_before=first, distance_after=value)


class _Search:
    """A model, a goal and the tokens that may take the concept's place."""

    def __init__(
        self, model: Diffusion, goal: Goal, budget: SearchBudget, generator: torch.Generator
    ) -> None:
        self._model = model
        self._goal = goal
        self._budget = budget
        self._generator = generator
        start, stop = goal.caption.subject_characters
        text = goal.caption.caption
        self._before, self._after = text[:start].rstrip(), text[stop:].lstrip()
        self._banned = sorted(banned_tokens(model.tokenizer, goal.caption.subject))
        self._spelled = plain_text(goal.caption.subject).replace(" ", "")
        # Both ends of a prompt are the same for any free tokens.
        self._first = len(self._ids([self._before])[0]) - 1
        self._last = self._first + budget.tokens - 1
        length = model.tokenizer.model_max_length
        if self._last + len(self._ids([self._after])[0]) > length:
            raise ConceptError(
                f"a prompt of {length} tokens has no room for {budget.tokens} free ones in "
                f"{text!r}: search for fewer"
            )

    def start(self) -> Tokens:
        """Return random words, each of one token that stays one when it is read again."""
        tokenizer = self._model.tokenizer
        allowed = sorted(set(range(len(tokenizer))) - set(self._banned))
        order = torch.randperm(len(allowed), generator=self._generator).tolist()
        chosen: list[int] = []
        for place in order:
            if self._kept([(*chosen, allowed[place])]):
                chosen.append(allowed[place])
            if len(chosen) == self._budget.tokens:
                return tuple(chosen)
        raise ConceptError(
            f"{self._model.name} has fewer than {self._budget.tokens} words besides "
            f"{self._goal.caption.subject!r}: no prompt can be searched"
        )

    def prompt(self, tokens: Tokens) -> str:
        """Return the prompt's text."""
        free = self._model.tokenizer.decode(list(tokens)).strip()
        return " ".join(part for part in (self._before, free, self._after) if part)

    def candidates(self, tokens: Tokens) -> list[Tokens]:
        """Return random single replacements among the best tokens of each place."""
        best_KB = self._best(tokens)
        count = self._budget.candidates
        place_R = torch.randint(len(tokens), (count,), generator=self._generator)
        rank_R = torch.randint(best_KB.shape[1], (count,), generator=self._generator)
        replaced = {
            (*tokens[:place], int(best_KB[place, rank]), *tokens[place + 1 :])
            for place, rank in zip(place_R.tolist(), rank_R.tolist(), strict=True)
        }
        return self._kept(sorted(replaced - {tokens}))

    @torch.no_grad()
    def distances(self, candidates: Sequence[Tokens]) -> torch.Tensor:
        """Return each candidate's distance from the goal, _R."""
        parts = [
            distance(
                self._encode(candidates[n : n + ENCODED_TOGETHER]), self._goal, last=self._last
            )
            for n in range(0, len(candidates), ENCODED_TOGETHER)
        ]
        return torch.cat(parts)

    def _encode(self, candidates: Sequence[Tokens]) -> Conditioning:
        prompts = [self.prompt(tokens) for tokens in candidates]
        return self._model.family.encode(self._model, self._model.token_ids(prompts))

    def _best(self, tokens: Tokens) -> torch.Tensor:
        """Return the tokens that lower the loss most to first order, best_KB for each place."""
        read: dict[HookPoint, torch.Tensor] = {}
        tables = [token_embedding(encoder.module) for encoder in self._model.encoders]
        with patched({HookPoint(table): _leaf(read, HookPoint(table)) for table in tables}):
            value_R = distance(self._encode([tokens]), self._goal, last=self._last)
        gradients = torch.autograd.grad(value_R.sum(), [read[HookPoint(table)] for table in tables])
        free = slice(self._first, self._last + 1)
        # The encoders share a vocabulary: one replacement changes what each of them reads.
        rises = [
            (gradient[0, free].float() @ table.weight.detach().float().T).cpu()
            for gradient, table in zip(gradients, tables, strict=True)
        ]
        rise_KV = torch.stack(rises).sum(0)
        rise_KV[:, self._banned] = torch.inf
        best = min(self._budget.best, rise_KV.shape[1] - len(self._banned))
        return rise_KV.topk(best, dim=1, largest=False).indices

    def _kept(self, candidates: Sequence[Tokens]) -> list[Tokens]:
        """Return the candidates that can be typed: the tokenizer reads their text as the same
        tokens.

        Nor may it spell the concept by parts of words, with or without spaces.
        """
        prompts = [self.prompt(tokens) for tokens in candidates]
        return [
            tokens
            for tokens, prompt, ids in zip(candidates, prompts, self._ids(prompts), strict=True)
            if tuple(ids[self._first : self._first + len(tokens)]) == tokens
            and prompt.isprintable()
            and self._spelled not in plain_text(prompt).replace(" ", "")
        ]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        return self._model.tokenizer(list(texts)).input_ids


def _leaf(read: dict[HookPoint, torch.Tensor], spot: HookPoint) -> Edit:
    """Return the edit that makes an embedding a leaf whose gradient is taken."""

    def keep(h_RLD: torch.Tensor) -> torch.Tensor:
        read[spot] = h_RLD.detach().requires_grad_()
        return read[spot]

    return keep
