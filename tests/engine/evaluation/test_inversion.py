"""Attacks on a tiny model and on emoji-sd: what they may touch, and what they find."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from engine.evaluation import inversion as attack
from engine.evaluation import prompt_search
from engine.model import sampling
from engine.model.model import Diffusion
from engine.model.opening import open_model, open_skeleton
from schemas.attack import InversionBudget, SearchBudget
from schemas.caption import Caption
from schemas.errors import ConceptError
from schemas.numerics import Numerics
from tests.models import tiny

NUMERICS = Numerics(steps=2, guidance=1.0)
CAPTION = Caption(caption="a photo of an apple", subject="apple", attribute="object")
BUDGET = InversionBudget(steps=6, batch=2, images=2)
SEARCH = SearchBudget(steps=6, tokens=3, candidates=16, best=32)


@pytest.fixture(scope="module")
def model(tiny_sd: Path) -> Diffusion:
    return open_model(str(tiny_sd), device="cpu")


def latents(model: Diffusion, prompt: str, count: int = 2) -> torch.Tensor:
    with torch.no_grad():
        cond = sampling.encode(model, [prompt] * count)
        return sampling.sample(model, cond, seeds=range(count), numerics=NUMERICS, rows=count)


def run_inversion(model: Diffusion, *, seed: int = 0, steps: int = 6) -> attack.Inversion:
    start = attack.random_vectors(model, torch.Generator().manual_seed(seed))
    return attack.invert(
        model,
        attack.open_slot(model, "a photo of a *"),
        latents(model, CAPTION.caption),
        start=start,
        budget=InversionBudget(steps=steps, batch=2),
        numerics=NUMERICS,
        seed=seed,
    )


@contextmanager
def unchanged(model: Diffusion) -> Iterator[None]:
    """Fail unless the block leaves weights, their gradients and hooks as they were."""
    parts = (model.denoiser, model.vae, *(encoder.module for encoder in model.encoders))

    def state() -> list[tuple[torch.Tensor, bool, bool]]:
        held = (p for part in parts for p in part.parameters())
        return [(p.detach().clone(), p.requires_grad, p.grad is None) for p in held]

    def hooks() -> int:
        modules: Iterator[nn.Module] = (m for part in parts for m in part.modules())
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)

    before, hooked = state(), hooks()
    yield
    for (old, was_free, had_none), (new, is_free, has_none) in zip(before, state(), strict=True):
        assert torch.equal(old, new)
        assert (was_free, had_none) == (is_free, has_none) == (False, True)
    assert hooks() == hooked


def test_attacks_leave_the_model_as_it_was(model: Diffusion) -> None:
    with unchanged(model):
        run_inversion(model)
        goal = prompt_search.read_goal(model, CAPTION)
        prompt_search.search_prompt(model, goal, budget=SEARCH, seed=0)


def test_a_failure_within_leaves_no_hook(model: Diffusion) -> None:
    slot = attack.open_slot(model, "a photo of a *")
    with unchanged(model), pytest.raises(RuntimeError):
        attack.encode_slot(model, slot, [torch.zeros(7)])


def test_slot_with_a_tokens_own_embedding_is_the_prompt_that_says_it(model: Diffusion) -> None:
    slot = attack.open_slot(model, "a photo of a *")
    (number,) = model.tokenizer("red", add_special_tokens=False).input_ids
    table = model.text_encoder.get_input_embeddings().weight  # pyright: ignore
    cond = attack.encode_slot(model, slot, [table[number]])
    said = sampling.encode(model, ["a photo of a red"])
    torch.testing.assert_close(cond.text_RLD, said.text_RLD)


def test_inversion_lowers_the_loss_and_the_seed_decides_it(model: Diffusion) -> None:
    found = run_inversion(model, steps=20)
    assert found.loss_after < found.loss_before
    first, again, other = (run_inversion(model, seed=seed, steps=5) for seed in (0, 0, 1))
    assert torch.equal(first.vectors[0], again.vectors[0])
    assert first.loss_after == again.loss_after
    assert not torch.equal(first.vectors[0], other.vectors[0])


def test_gradient_of_the_embedding_is_that_of_finite_differences(model: Diffusion) -> None:
    slot = attack.open_slot(model, "a photo of a *")
    vector_D = attack.random_vectors(model, torch.Generator().manual_seed(0))[0].requires_grad_()
    x0_RChw = latents(model, CAPTION.caption)

    def loss(v_D: torch.Tensor) -> torch.Tensor:
        draw = attack._draw(model, x0_RChw, 4, torch.Generator().manual_seed(3))
        return attack._loss(model, attack.encode_slot(model, slot, [v_D]), draw, NUMERICS)

    (gradient_D,) = torch.autograd.grad(loss(vector_D), [vector_D])
    step_D = 1e-3 * torch.nn.functional.normalize(gradient_D, dim=0)
    with torch.no_grad():
        rise = float(loss(vector_D + step_D) - loss(vector_D - step_D)) / 2
    assert rise == pytest.approx(float(gradient_D @ step_D), rel=0.05)


def test_search_never_gets_worse_and_the_seed_decides_it(model: Diffusion) -> None:
    goal = prompt_search.read_goal(model, CAPTION)
    found = [
        prompt_search.search_prompt(
            model,
            goal,
            budget=SearchBudget(steps=steps, tokens=3, candidates=16),
            seed=2,
        )
        for steps in (0, 1, 2, 4, 8, 8)
    ]
    values = [f.distance_after for f in found]
    assert values == sorted(values, reverse=True)
    assert values[-1] < values[0] == found[-1].distance_before
    assert found[-1] == found[-2]


@pytest.mark.parametrize("seed", range(4))
def test_found_prompt_can_be_typed_and_never_says_the_concept(model: Diffusion, seed: int) -> None:
    goal = prompt_search.read_goal(model, CAPTION)
    found = prompt_search.search_prompt(model, goal, budget=SEARCH, seed=seed)
    ids = model.tokenizer(found.prompt).input_ids
    banned = prompt_search.banned_tokens(model.tokenizer, "apple")
    around = set(model.tokenizer("a photo of an").input_ids)
    assert not (set(ids) - around) & banned
    assert "apple" not in "".join(found.prompt.split()).casefold()
    assert found.prompt.isprintable()
    assert found.prompt.startswith("a photo of an ")
    cond = sampling.encode(model, [found.prompt])
    last = len(ids) - 2
    reached = float(prompt_search.distance(cond, goal, last=last)[0])
    assert reached == pytest.approx(found.distance_after, rel=1e-4)


def test_words_after_the_concept_stay(model: Diffusion) -> None:
    caption = Caption(caption="a red apple on a table", subject="red", attribute="color")
    goal = prompt_search.read_goal(model, caption)
    found = prompt_search.search_prompt(model, goal, budget=SEARCH, seed=0)
    assert found.prompt.startswith("a ")
    assert found.prompt.endswith(" apple on a table")


def test_distance_of_the_concepts_own_prompt_is_zero(model: Diffusion) -> None:
    goal = prompt_search.read_goal(model, CAPTION)
    own = prompt_search.distance(goal.cond, goal, last=goal.last)
    other = sampling.encode(model, ["a photo of an old castle"])
    assert own.tolist() == [0.0]
    assert float(prompt_search.distance(other, goal, last=goal.last)[0]) > 0


def test_banned_are_all_tokens_that_spell_a_word_of_the_concept(model: Diffusion) -> None:
    banned = prompt_search.banned_tokens(model.tokenizer, "red apple")
    texts = {model.tokenizer.convert_ids_to_tokens(number) for number in banned}
    assert {"red</w>", "<|startoftext|>", "<|endoftext|>"} <= texts
    assert set(model.tokenizer("red apple").input_ids) <= banned
    assert "ship</w>" not in texts


def test_two_encoders_are_attacked_together(tiny_families: dict[str, Path]) -> None:
    own = open_model(str(tiny_families["sdxl"]), device="cpu")
    first, second = own.encoders
    # As on the hub, where both have one vocabulary; training the same one twice may give two.
    model = replace(own, encoders=(first, replace(second, tokenizer=first.tokenizer)))
    with unchanged(model):
        found = run_inversion(model, steps=30)
        goal = prompt_search.read_goal(model, CAPTION)
        prompt = prompt_search.search_prompt(model, goal, budget=SEARCH, seed=0)
    assert len(found.vectors) == 2
    assert found.loss_after < found.loss_before
    assert prompt.distance_after < prompt.distance_before


def test_encoders_of_different_vocabularies_are_not_searched(
    tiny_families: dict[str, Path],
) -> None:
    own = open_model(str(tiny_families["sdxl"]), device="cpu")
    first, second = own.encoders
    other = replace(second, tokenizer=tiny.build_tokenizer(merges=40))
    with pytest.raises(ConceptError, match="read different tokens"):
        prompt_search.read_goal(replace(own, encoders=(first, other)), CAPTION)


def test_other_text_encoders_are_refused_before_weights_load(
    tiny_families: dict[str, Path],
) -> None:
    with pytest.raises(ConceptError, match="CLIP text encoders"):
        attack.check_attackable(open_skeleton(str(tiny_families["if"])))
    attack.check_attackable(open_skeleton(str(tiny_families["sdxl"])))


def test_prompt_without_room_is_refused(model: Diffusion) -> None:
    goal = prompt_search.read_goal(model, CAPTION)
    with pytest.raises(ConceptError, match="no room"):
        prompt_search.search_prompt(model, goal, budget=SearchBudget(tokens=30), seed=0)
