"""How well the shipped model draws what it never drew: `python -m engine.reference.evaluate`.

Every held-out combination gives one prompt. The scorer then answers four forced choices per image:
the caption with one slot replaced by each of its options. A colour is asked for where the prompt
names one (six options); `colour or none` asks it of all prompts, with "no colour word" a seventh.
Shapes: N prompts, O options, D embedding (suffixes `_NO`, `_ND`).
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from PIL import Image

from engine.reference.data import Pool, load_pool
from engine.reference.export import FOLDER, megabytes
from engine.reference.scorer import load_scorer
from engine.reference.vocabulary import (
    COLOURS,
    GUIDANCE,
    OBJECTS,
    OPENINGS,
    STEPS,
    STYLES,
    VIEWPOINTS,
    Combo,
    caption,
    combos,
)

QUESTIONS: dict[str, tuple[str, list[str]]] = {
    "object": ("object", list(OBJECTS)),
    "style": ("style", list(STYLES)),
    "colour": ("colour", [c for c in COLOURS if c != "natural"]),
    "colour or none": ("colour", list(COLOURS)),
    "viewpoint": ("viewpoint", list(VIEWPOINTS)),
}
"""Name of a forced choice to its slot and its options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the evaluation found."""

    prompts: int
    guidance: float
    steps: int
    generated: dict[str, float]
    """Share of generated images that the scorer answers as the prompt says, by question."""
    rendered: dict[str, float]
    """The same for held-out drawings: how far the scorer can be trusted."""
    by_style: dict[str, float]
    """Object accuracy of generated images, by style."""
    seconds_per_image: float
    megabytes: float


class Judge:
    """The scorer, asked forced choices."""

    def __init__(self, folder: Path) -> None:
        self.model, self.preprocess, self.tokenizer = load_scorer(folder)

    @torch.no_grad()
    def embed_images(self, images: list[Image.Image]) -> torch.Tensor:
        """Unit embeddings of the images."""
        pixels = torch.stack([self.preprocess(image) for image in images])
        parts = [self.model.encode_image(p) for p in pixels.split(256)]
        return F.normalize(torch.cat(parts), dim=-1)

    @torch.no_grad()
    def embed_texts(self, texts: list[str]) -> torch.Tensor:
        """Unit embeddings of the captions."""
        distinct = list(dict.fromkeys(texts))
        parts = [self.model.encode_text(ids) for ids in self.tokenizer(distinct).split(256)]
        embedding_ND = F.normalize(torch.cat(parts), dim=-1)
        return embedding_ND[[distinct.index(text) for text in texts]]

    def correct(self, image_ND: torch.Tensor, asked: list[Combo], *, question: str) -> torch.Tensor:
        """Whether each image's best option is the one of its combination, `(N,)` of bool."""
        slot, options = QUESTIONS[question]
        texts = [caption(replace(c, **{slot: o})) for c in asked for o in options]
        text_NOD = self.embed_texts(texts).view(len(asked), len(options), -1)
        best_N = torch.einsum("nd,nod->no", image_ND, text_NOD).argmax(1)
        right_N = torch.tensor([options.index(getattr(c, slot)) for c in asked])
        return best_N == right_N


def score(judge: Judge, images: list[Image.Image], asked: list[Combo]) -> dict[str, torch.Tensor]:
    """Right or wrong by question, over the combinations that the question is asked of."""
    image_ND = judge.embed_images(images)
    answers = {}
    for question, (slot, options) in QUESTIONS.items():
        rows = [i for i, c in enumerate(asked) if getattr(c, slot) in options]
        kept = [asked[i] for i in rows]
        answers[question] = judge.correct(image_ND[rows], kept, question=question)
    return answers


def prompts(asked: list[Combo]) -> list[str]:
    """One prompt each, the openings in turn."""
    return [caption(c, opening=OPENINGS[i % len(OPENINGS)]) for i, c in enumerate(asked)]


def generate(
    pipeline: StableDiffusionPipeline,
    texts: list[str],
    *,
    guidance: float,
    steps: int,
    batch: int = 16,
) -> list[Image.Image]:
    """One image per prompt; prompt i starts from the noise of seed i."""
    images: list[Image.Image] = []
    for start in range(0, len(texts), batch):
        part = texts[start : start + batch]
        seeds = [torch.Generator().manual_seed(start + i) for i in range(len(part))]
        arguments = {"guidance_scale": guidance, "num_inference_steps": steps}
        images += pipeline(part, generator=seeds, **arguments).images
    return images


def rendered_images(pool: Pool, asked: list[Combo]) -> list[Image.Image]:
    """The first placement of each combination's drawing."""
    rows = {c: i for i, c in enumerate(pool.combos)}
    pixels = [pool.image_NKCHW[rows[c], 0].permute(1, 2, 0).numpy() for c in asked]
    return [Image.fromarray(np.ascontiguousarray(p)) for p in pixels]


def evaluate(folder: Path, pool: Pool, *, guidance: float, steps: int, limit: int) -> Report:
    """Generate the held-out prompts (at most `limit`, spread evenly) and ask the scorer."""
    asked = [c for c in combos() if c.held_out]
    asked = [asked[i * len(asked) // limit] for i in range(limit)] if limit < len(asked) else asked
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    judge = Judge(folder / "scorer")
    started = time.monotonic()
    images = generate(pipeline, prompts(asked), guidance=guidance, steps=steps)
    seconds = time.monotonic() - started
    answers = score(judge, images, asked)
    share: Callable[[torch.Tensor], float] = lambda right: float(right.float().mean())  # noqa: E731
    of_style = {s: torch.tensor([c.style == s for c in asked]) for s in STYLES}
    return Report(
        prompts=len(asked),
        guidance=guidance,
        steps=steps,
        generated={q: share(a) for q, a in answers.items()},
        rendered={
            q: share(a) for q, a in score(judge, rendered_images(pool, asked), asked).items()
        },
        by_style={s: share(answers["object"][mask]) for s, mask in of_style.items()},
        seconds_per_image=seconds / len(asked),
        megabytes=megabytes(folder),
    )


def table(report: Report) -> str:
    """The report as a Markdown table and three lines."""
    rows = [f"| {q} | {report.generated[q]:.3f} | {report.rendered[q]:.3f} |" for q in QUESTIONS]
    styles = ", ".join(f"{s} {v:.3f}" for s, v in report.by_style.items())
    return "\n".join(
        [
            f"{report.prompts} held-out prompts, {report.steps} steps, guidance {report.guidance}",
            "",
            "| forced choice | generated | rendered (scorer's own accuracy) |",
            "|---|---|---|",
            *rows,
            "",
            f"object by style: {styles}",
            f"{report.seconds_per_image:.3f} s per image (batches of 16); "
            f"weights {report.megabytes:.1f} MB",
        ]
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--work", type=Path, default=Path(".build/emoji"), help="rendered drawings")
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--limit", type=int, default=10_000, help="prompts at most")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    report = evaluate(
        options.folder,
        load_pool(options.work),
        guidance=options.guidance,
        steps=options.steps,
        limit=options.limit,
    )
    fields = {name: getattr(report, name) for name in Report.__slots__}
    print(json.dumps(fields, indent=2) if options.json else table(report))


if __name__ == "__main__":
    sys.exit(main())
