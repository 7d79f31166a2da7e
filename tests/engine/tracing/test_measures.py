"""Measures: their values on images, and the names that are refused."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from engine.model.scorer import Scorer, open_scorer
from engine.tracing.measures import MEASURES, Outcome, UnitScorer, check_measures
from schemas.caption import Caption
from schemas.errors import PlanError
from tests.rounding import ROUNDING

CAPTION = Caption(
    caption="a red apple on a wooden table", subject="red apple", attribute="object", target="apple"
)
OTHERS = ("castle", "sea")
"""Targets that say other options than the caption's."""


@pytest.fixture(scope="module")
def scorer(tiny_scorer: Path) -> Scorer:
    return open_scorer(str(tiny_scorer))


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    """Return four images, white, black, a gradient and noise, with latents."""
    generator = torch.Generator().manual_seed(0)
    gradient = torch.linspace(0, 1, 16).expand(3, 16, 16)
    images = [torch.ones(3, 16, 16), torch.zeros(3, 16, 16), gradient]
    noise = torch.rand((3, 16, 16), generator=generator)
    return Outcome(
        images_RCHW=torch.stack([*images, noise]),
        latents_RChw=torch.randn((4, 4, 8, 8), generator=generator),
    )


def test_the_margin_is_the_target_less_the_mean_of_the_other_options(
    scorer: Scorer, outcome: Outcome
) -> None:
    alternatives = CAPTION.model_copy(update={"subject": "apple"}).alternatives(
        ["castle", "apple", "sea", "castle"]
    )
    assert alternatives == ("castle", "sea")
    unit_scorer = UnitScorer(
        scorer=scorer,
        caption=CAPTION,
        clean=outcome.take([0]),
        measures=("margin", "target"),
        alternatives=alternatives,
    )
    own = scorer.embed_images(outcome.images_RCHW)
    of_others = (own @ scorer.embed_texts(alternatives).T).double()
    values = unit_scorer.measure(outcome)
    for row, scores in enumerate(values):
        expected = scores["target"] - float(of_others[row].mean())
        assert scores["margin"] == pytest.approx(expected, abs=ROUNDING)
    assert len({round(scores["margin"], 6) for scores in values}) > 1


def test_a_margin_without_other_options_is_refused(scorer: Scorer, outcome: Outcome) -> None:
    alone = UnitScorer(
        scorer=scorer, caption=CAPTION, clean=outcome.take([0]), measures=("margin",)
    )
    with pytest.raises(PlanError, match="other options"):
        alone.measure(outcome)


def measured(scorer: Scorer, outcome: Outcome, clean: int, *names: str) -> list[dict[str, float]]:
    unit_scorer = UnitScorer(
        scorer=scorer,
        caption=CAPTION,
        clean=outcome.take([clean]),
        measures=names,
        alternatives=OTHERS,
    )
    return unit_scorer.measure(outcome)


def embeddings(folder: Path, images_RCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return open_clip's embeddings of images of its own size, and of the caption and target."""
    name = f"local-dir:{folder}"
    model: Any
    model, *_ = open_clip.create_model_and_transforms(name)
    ids = open_clip.get_tokenizer(name)([CAPTION.caption, CAPTION.target_text])
    with torch.no_grad():
        images = model.eval().encode_image((images_RCHW - 0.5) / 0.5)
        texts = model.encode_text(ids)
    return images / images.norm(dim=1, keepdim=True), texts / texts.norm(dim=1, keepdim=True)


def test_text_and_image_scores_equal_open_clips(
    scorer: Scorer, outcome: Outcome, tiny_scorer: Path
) -> None:
    got = measured(scorer, outcome, 2, "target", "clean-image", "caption")
    images, texts = embeddings(tiny_scorer, outcome.images_RCHW)
    for row, values in enumerate(got):
        assert list(values) == ["target", "clean-image", "caption"]
        assert values["caption"] == pytest.approx(float(images[row] @ texts[0]), abs=1e-5)
        assert values["target"] == pytest.approx(float(images[row] @ texts[1]), abs=1e-5)
        assert values["clean-image"] == pytest.approx(float(images[row] @ images[2]), abs=1e-5)
        assert abs(values["caption"] - values["target"]) > 1e-4


def test_the_clean_image_scores_one_and_no_other_does(scorer: Scorer, outcome: Outcome) -> None:
    for clean in range(4):
        values = [row["clean-image"] for row in measured(scorer, outcome, clean, "clean-image")]
        assert values[clean] == pytest.approx(1, abs=1e-6)
        assert all(value < 1 - 1e-4 for row, value in enumerate(values) if row != clean)


def test_the_clean_latent_scores_zero_and_every_other_minus_its_distance(
    scorer: Scorer, outcome: Outcome
) -> None:
    latents = outcome.latents_RChw.double()
    for clean in range(4):
        values = [row["clean-latent"] for row in measured(scorer, outcome, clean, "clean-latent")]
        for row, value in enumerate(values):
            distance = float(torch.dist(latents[row], latents[clean])) / latents[row].numel() ** 0.5
            assert value == pytest.approx(-distance, abs=1e-6)
            assert (value == 0) is (row == clean)


def test_a_rows_values_do_not_depend_on_the_other_rows(scorer: Scorer, outcome: Outcome) -> None:
    whole = measured(scorer, outcome, 0, *MEASURES)
    unit_scorer = UnitScorer(
        scorer=scorer,
        caption=CAPTION,
        clean=outcome.take([0]),
        measures=tuple(MEASURES),
        alternatives=OTHERS,
    )
    for row in range(4):
        (alone,) = unit_scorer.measure(outcome.take([row]))
        assert alone == pytest.approx(whole[row], abs=ROUNDING)


def test_unknown_and_repeated_names_are_refused(scorer: Scorer, outcome: Outcome) -> None:
    check_measures(tuple(MEASURES))
    for names, message in (
        (("caption", "clean"), r"unknown measure 'clean'.*caption, target, clean-image"),
        (("caption", "target", "caption"), "named twice"),
    ):
        with pytest.raises(PlanError, match=message):
            check_measures(names)
        with pytest.raises(PlanError, match=message):
            measured(scorer, outcome, 0, *names)
