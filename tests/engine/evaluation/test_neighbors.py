"""Nearness of names where the text rows are not the positions of the first encoder's tokens."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.editing.prompts import plain_phrase
from engine.evaluation.neighbors import Neighborhood
from engine.model.model import Diffusion
from engine.model.opening import open_model
from engine.model.sampling import encode
from engine.testing.families import WORDS
from schemas.concept import ConceptKind
from tests.models.language_models import build_qwen_image
from tests.models.transformers import build_flux, build_sana


@torch.no_grad()
def last_read(model: Diffusion, phrase: str) -> torch.Tensor:
    """Return the last text row that the denoiser reads."""
    cond = encode(model, [phrase])
    assert cond.mask_RL is not None
    return cond.text_RLD[0, int(cond.mask_RL[0].nonzero()[-1])].double()


@torch.no_grad()
def end_of_t5(model: Diffusion, phrase: str) -> torch.Tensor:
    """Return the row of the last token of FLUX.1's second encoder, which alone gives rows."""
    ids = model.encoders[1].tokenizer(phrase).input_ids
    return encode(model, [phrase]).text_RLD[0, len(ids) - 1].double()


@pytest.mark.parametrize(
    ("build", "read"),
    [
        (partial(build_sana, sprint=False), last_read),
        (build_qwen_image, last_read),
        (partial(build_flux, guidance_embeds=True), end_of_t5),
    ],
    ids=["sana", "qwen-image", "flux"],
)
def test_a_name_is_read_at_the_end_of_its_phrase(
    build: Callable[[], Any], read: Callable[[Diffusion, str], torch.Tensor], tmp_path: Path
) -> None:
    build().save_pretrained(tmp_path)
    model, kind = open_model(str(tmp_path), device="cpu"), ConceptKind.OBJECT
    phrases = [plain_phrase(name, kind=kind, book=WORDS) for name in ("apple", "boat")]
    wanted = torch.cosine_similarity(*(read(model, phrase) for phrase in phrases), dim=0)
    found = Neighborhood(model, WORDS).nearest("apple", ["boat"], kind=kind)
    assert found == ("boat", pytest.approx(float(wanted), abs=1e-6))
