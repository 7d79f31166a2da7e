"""Checkpoints of untrained networks become folders that diffusers and open_clip open."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import CLIPTokenizer

from engine.reference import dit, export, loop, scorer, text, unet, vae
from engine.reference.judge import PAIR_QUESTIONS, QUESTIONS, Judge, answers
from engine.reference.prompt_sets import prompt_sets, prompts
from engine.reference.vocabulary import Scene


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    """Return the text encoders' tokenizer."""
    return text.FIRST.tokenizer()


@pytest.fixture(scope="module")
def parts(tokenizer: CLIPTokenizer) -> export.Parts:
    """Return untrained parts that both pipelines share."""
    torch.manual_seed(0)
    encoders = (
        text.build_text_encoder(tokenizer, layers=text.FIRST.layers).eval(),
        text.build_text_encoder(tokenizer, layers=text.SECOND.layers).eval(),
    )
    return export.Parts(
        vae=vae.build_vae().eval(), scale=0.4, encoders=encoders, tokenizers=(tokenizer, tokenizer)
    )


@pytest.fixture(scope="module")
def folder(parts: export.Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the shipped folders made of checkpoints of untrained denoisers."""
    work, shipped = (tmp_path_factory.mktemp(name) for name in ("work", "shipped"))
    for name, model in (("unet", unet.build_unet()), ("dit", dit.build_dit())):
        loop.save(work / f"{name}.pt", {"average": model.state_dict()})
    judge = scorer.Student(scorer.scorer_tokenizer()).scorer.eval()
    export.export_all(parts, judge, work=work, folder=shipped)
    return shipped


@pytest.mark.parametrize("name", ["emoji-sd", "emoji-dit"])
def test_a_shipped_pipeline_draws_and_keeps_its_parts(
    folder: Path, parts: export.Parts, name: str
) -> None:
    pipeline = export.open_pipeline(folder, name)
    assert pipeline.vae.config.scaling_factor == 0.4
    ours, theirs = parts.vae.state_dict(), pipeline.vae.state_dict()
    for key, weight in ours.items():
        assert theirs[key].dtype == torch.float32
        assert torch.equal(theirs[key], weight.half().float())
    arguments = {"num_inference_steps": 2, "guidance_scale": 2.0, **export.EXTRA_ARGUMENTS[name]}
    seeds = [torch.Generator().manual_seed(n) for n in range(2)]
    first, second = pipeline(["a cat", "a dog"], generator=seeds, **arguments).images
    assert first.size == (64, 64)
    assert first.tobytes() != second.tobytes()


def test_the_transformer_is_trained_on_what_its_pipeline_gives_it(
    folder: Path, parts: export.Parts
) -> None:
    texts = ["a red cat and a blue dog", "", "two birthday cakes in the style of neon"]
    conditioning = dit.TextConditioning(encoders=parts.encoders, tokenizers=parts.tokenizers)
    text_NTD, pooled_NP = conditioning(texts)
    pipeline = export.open_pipeline(folder, "emoji-dit")
    rows, _, pooled, _ = pipeline.encode_prompt(
        texts, None, None, do_classifier_free_guidance=False, max_sequence_length=dit.ZERO_ROWS
    )
    torch.testing.assert_close(rows, text_NTD)
    torch.testing.assert_close(pooled, pooled_NP)
    pipeline.scheduler.set_timesteps(20)
    # The noise levels that the pipeline visits lie on the shifted curve of training.
    even_N = torch.linspace(1, 1 / 1000, 20)
    shifted_N = dit.SHIFT * even_N / (1 + (dit.SHIFT - 1) * even_N)
    assert pipeline.scheduler.sigmas[0] == pytest.approx(1.0)
    assert float(pipeline.scheduler.sigmas[10]) == pytest.approx(float(shifted_N[10]), abs=0.02)


def test_the_scorer_answers_every_question(folder: Path) -> None:
    judge = Judge(folder / "emoji-sd" / "scorer")
    images = [Image.new("RGB", (64, 64), color) for color in ("red", "white")]
    one = [Scene("cat", "noto", "red"), Scene("person", "neon", count="two", action="running")]
    right = answers(judge, images, one)
    assert set(right) == set(QUESTIONS)
    asked_of = {name: len(found) for name, found in right.items()}
    assert (asked_of["color"], asked_of["action"], asked_of["object"]) == (1, 1, 2)
    two = [Scene("cat", "noto", "red", second="dog", second_color="blue")] * 2
    found = answers(judge, images, two, questions=PAIR_QUESTIONS)
    assert set(found) == set(PAIR_QUESTIONS)


def test_no_caption_is_cut_off(tokenizer: CLIPTokenizer) -> None:
    sets = prompt_sets(fraction=0.3)
    texts = prompts([*sets.one_object, *sets.two_objects])
    long = Scene(
        "birthday cake", "stencil", "purple", second="christmas tree", second_color="orange"
    )
    texts += prompts([long] * 5)
    for reader in (tokenizer, scorer.scorer_tokenizer()):
        lengths = [len(reader(said).input_ids) for said in texts]
        assert max(lengths) <= reader.model_max_length
