"""Pairs of images, unedited and edited from one latent, and the names that a scorer recognizes.

Forced choice: an image shows a name if the text of its own prompt scores highest among the texts of
the prompt with each name of the kind in the name's place. Plain names cannot replace the prompts: a
green cat is nearer to "a frog" than to "a cat", but not to "a green frog" than to "a green cat".

Shapes: R images, T texts, D embedding width, C H W image (suffixes `_RCHW`, `_RD`, `_TD`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from engine.editing.delta import replaced
from engine.evaluation.wordings import fill
from engine.model.model import Diffusion
from engine.model.sampling import generate
from engine.model.scorer import Scorer
from schemas.concept import ConceptKind
from schemas.evaluation import EvaluationPrompt
from schemas.numerics import Numerics

Weights = Mapping[str, torch.Tensor]
"""An edit's weights by public name."""
Names = Mapping[ConceptKind, Sequence[str]]
"""Names that an image may be recognized as, by kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One image of a pair."""

    image_CHW: torch.Tensor
    embedding_D: torch.Tensor
    """Embedding by the scorer, of length 1, on the CPU."""
    clip: float
    """Cosine with the image's own prompt."""
    chosen: str | None
    """The name that the image shows; None where there is no choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A prompt's images by the unedited and the edited model."""

    before: Side
    after: Side

    @property
    def similarity(self) -> float:
        """Cosine of the two images' embeddings, 1 for the same embedding exactly."""
        if torch.equal(self.before.embedding_D, self.after.embedding_D):
            return 1.0
        return float(self.before.embedding_D.double() @ self.after.embedding_D.double())


@torch.inference_mode()
def draw_pairs(
    model: Diffusion,
    scorer: Scorer,
    edits: Mapping[str, Weights],
    prompts: Sequence[EvaluationPrompt],
    *,
    seed: int,
    names: Names,
    numerics: Numerics,
    rows: int,
) -> dict[str, list[Pair]]:
    """Return the pair of every prompt by each edit; the unedited images are drawn once.

    All start from the latent of `seed` and are drawn `rows` at a time. The model is as it was
    afterward.
    """
    texts, seeds = [prompt.text for prompt in prompts], [seed] * len(prompts)

    def sides(templates: Sequence[str | None]) -> list[Side]:
        images_RCHW = generate(model, texts, seeds=seeds, numerics=numerics, rows=rows)
        return judged(images_RCHW, prompts, templates, names=names, scorer=scorer)

    before = sides([prompt.template for prompt in prompts])
    templates = [prompt.edited_template or prompt.template for prompt in prompts]
    pairs: dict[str, list[Pair]] = {}
    for name, weights in edits.items():
        with replaced(model, weights):
            pairs[name] = [
                Pair(before=b, after=a) for b, a in zip(before, sides(templates), strict=True)
            ]
    return pairs


def judged(
    images_RCHW: torch.Tensor,
    prompts: Sequence[EvaluationPrompt],
    templates: Sequence[str | None],
    *,
    names: Names,
    scorer: Scorer,
) -> list[Side]:
    """Return the name recognized in the image of each prompt, by the template of each."""
    embedding_RD = scorer.embed_images(images_RCHW)
    return [
        Side(
            image_CHW=image_CHW,
            embedding_D=embedding_D.cpu(),
            clip=_cosines(scorer, embedding_D, [prompt.text])[0],
            chosen=_chosen(
                scorer, embedding_D, template, names[prompt.kind] if prompt.kind else ()
            ),
        )
        for image_CHW, embedding_D, prompt, template in zip(
            images_RCHW, embedding_RD, prompts, templates, strict=True
        )
    ]


def _chosen(
    scorer: Scorer, embedding_D: torch.Tensor, template: str | None, options: Sequence[str]
) -> str | None:
    if template is None or len(options) < 2:
        return None
    cosines = _cosines(scorer, embedding_D, [fill(template, name) for name in options])
    return options[max(range(len(options)), key=cosines.__getitem__)]


def _cosines(scorer: Scorer, embedding_D: torch.Tensor, texts: Sequence[str]) -> list[float]:
    return (scorer.embed_texts(texts).double() @ embedding_D.double()).tolist()
