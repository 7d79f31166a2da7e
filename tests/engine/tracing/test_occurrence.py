"""Captions that say their subject twice: what is corrupted, and what a run then still says."""

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.model.opening import open_model
from engine.model.tokens import find_subject
from engine.tracing.corruption import subject_noise
from engine.tracing.interventions import CORRUPTED, reference_runs
from engine.tracing.text_runs import TextRow, encode_rows
from schemas.caption import Caption
from schemas.component import Part
from schemas.numerics import Numerics
from schemas.unit import Unit

TWICE = Caption(
    caption="a castle and a castle", subject="castle", attribute="object", counterfactual="ship"
)


def unit_of(caption: Caption) -> Unit:
    return Unit(
        caption=caption, seed=0, draw=0, part=Part.DENOISER, components=(), windows=((0, 1),)
    )


@pytest.mark.parametrize(("occurrence", "mentions"), [("all", 2), ("first", 1), ("last", 1)])
def test_the_noise_is_on_the_mentions_that_are_asked_for(
    tiny_sd: Path, occurrence: Any, mentions: int
) -> None:
    model = open_model(str(tiny_sd), device="cpu")
    span = find_subject(model.tokenizer, TWICE, occurrence)
    noise_LD = subject_noise(unit_of(TWICE), span, shape=(24, 32), scale=1.0)
    noised = noise_LD.abs().sum(1).nonzero().flatten().tolist()
    assert noised == list(span.subject)
    ids = model.tokenizer(TWICE.caption).input_ids
    castle = model.tokenizer("castle").input_ids[1:-1]
    assert [ids[position] for position in noised] == castle * mentions


def test_one_mention_has_the_noise_that_it_had(tiny_sd: Path) -> None:
    model = open_model(str(tiny_sd), device="cpu")
    once = Caption(caption="a red apple", subject="apple", attribute="object")
    spans = [find_subject(model.tokenizer, once, o) for o in (None, "all", "first", "last")]
    noises = [subject_noise(unit_of(once), s, shape=(24, 32), scale=2.0) for s in spans]
    assert all(torch.equal(noise, noises[0]) for noise in noises)


def test_a_counterfactual_run_no_longer_names_the_subject(tiny_sd: Path) -> None:
    model = open_model(str(tiny_sd), device="cpu")
    numerics = Numerics(corruption="counterfactual")
    runs = reference_runs(unit_of(TWICE), numerics)
    assert runs[CORRUPTED].text == "a ship and a ship"
    assert (
        len(encode_rows(model, unit_of(TWICE), [TextRow(run=run) for run in runs], numerics)) == 2
    )
