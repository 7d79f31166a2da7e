"""The accuracy of the shipped models on held-out prompts: `python -m engine.reference.evaluate`.

Prompts are captions that no training stage saw, of three sets: one object (a sixth of them of two,
a sixth of three); objects in a color that training never showed them in; two objects in two colors.
The scorer answers forced choices on each image: the caption with one attribute replaced by each of
its options. `color` is asked if the prompt names one (six options); `color or none` is asked of all
prompts, with "no color word" as a seventh option; `viewpoint` is asked if upside down looks
different.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from engine.reference.ceiling import rendered
from engine.reference.drawings import load_sprites
from engine.reference.export import EXTRA_ARGUMENTS, FOLDER, PIPELINES, megabytes, open_pipeline
from engine.reference.judge import PAIR_QUESTIONS, QUESTIONS, Judge, answers, share, to_images
from engine.reference.prompt_sets import PromptSets, prompt_sets, prompts
from engine.reference.scenes import to_pixels
from engine.reference.train import WORK
from engine.reference.vocabulary import GUIDANCE, STEPS, Scene

LEAST = {
    "generated": {"object": 0.93, "style": 0.95, "color": 0.95, "count": 0.85, "viewpoint": 0.92},
    "rendered": {"object": 0.97, "style": 0.97, "color": 0.97, "count": 0.97, "viewpoint": 0.95},
}
"""The least accepted shares, for generated images and for the scorer on rendered drawings."""
MEGABYTES = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The results of one model, as shares by question."""

    model: str
    prompts: int
    guidance: float
    steps: int
    generated: dict[str, float]
    unseen_pairs: dict[str, float]
    two_objects: dict[str, float]
    seconds_per_image: float


def generate(
    pipeline: Any, texts: list[str], *, batch: int = 16, **arguments: Any
) -> list[Image.Image]:
    """Return one image per prompt; prompt i starts from the noise of seed i."""
    images: list[Image.Image] = []
    for start in range(0, len(texts), batch):
        part = texts[start : start + batch]
        seeds = [torch.Generator().manual_seed(start + i) for i in range(len(part))]
        images += pipeline(part, generator=seeds, **arguments).images
    return images


def pair_shares(
    judge: Judge, images: Sequence[Image.Image], asked: Sequence[Scene]
) -> dict[str, float]:
    """Return the shares of correct answers on two objects; `binding` is all four correct."""
    right = answers(judge, images, asked, questions=PAIR_QUESTIONS)
    everything_N = torch.stack(list(right.values())).all(0)
    return {q: share(r) for q, r in right.items()} | {"binding": share(everything_N)}


def shares(judge: Judge, images: Sequence[Image.Image], asked: Sequence[Scene]) -> dict[str, float]:
    """Return the shares of correct answers on one object."""
    return {q: share(right) for q, right in answers(judge, images, asked).items()}


def evaluate(
    folder: Path, name: str, sets: PromptSets, judge: Judge, *, guidance: float, steps: int
) -> Result:
    """Return the scorer's judgment of one generated image per prompt."""
    pipeline = open_pipeline(folder, name)
    arguments = {"guidance_scale": guidance, "num_inference_steps": steps, **EXTRA_ARGUMENTS[name]}

    def images_of(asked: Sequence[Scene]) -> list[Image.Image]:
        return generate(pipeline, prompts(asked), **arguments)

    started = time.monotonic()
    images = images_of(sets.one_object)
    seconds = time.monotonic() - started
    return Result(
        model=name,
        prompts=len(sets.one_object),
        guidance=guidance,
        steps=steps,
        generated=shares(judge, images, sets.one_object),
        unseen_pairs=shares(judge, images_of(sets.unseen_pairs), sets.unseen_pairs),
        two_objects=pair_shares(judge, images_of(sets.two_objects), sets.two_objects),
        seconds_per_image=seconds / len(images),
    )


def scorer_shares(judge: Judge, sprites: torch.Tensor, sets: PromptSets) -> dict[str, float]:
    """Return the scorer's accuracy on rendered held-out drawings, by question."""

    def drawn(asked: list[Scene]) -> list[Image.Image]:
        return to_images(to_pixels(rendered(sprites, asked)))

    one, two = sets.one_object, sets.two_objects
    return shares(judge, drawn(one), one) | pair_shares(judge, drawn(two), two)


def table(results: list[Result], scorer: dict[str, float], *, size: float) -> str:
    """Return the acceptance table in Markdown: shares, least accepted shares, shortfalls."""
    names = [result.model for result in results]
    lines = [
        f"{results[0].prompts} held-out prompts of one object, {results[0].steps} steps; guidance "
        + ", ".join(f"{r.guidance} ({r.model})" for r in results),
        "",
        f"| forced choice | {' | '.join(names)} | needed | scorer on drawings | needed |",
        "|---" * (len(names) + 4) + "|",
        *(_row(q, [r.generated.get(q) for r in results], scorer) for q in QUESTIONS),
        *(
            _row(f"{q}, unseen color of an object", [r.unseen_pairs.get(q) for r in results], {})
            for q in ("object", "color")
        ),
        *(
            _row(q, [r.two_objects.get(q) for r in results], scorer)
            for q in (*PAIR_QUESTIONS, "binding")
        ),
        "",
        *(f"{r.model}: {r.seconds_per_image:.3f} s an image in batches of 16" for r in results),
        f"weights {size:.1f} MB of at most {MEGABYTES:.0f}",
    ]
    return "\n".join(lines)


def _row(question: str, generated: list[float | None], scorer: dict[str, float]) -> str:
    needed = [LEAST[kind].get(question) for kind in ("generated", "rendered")]
    cells = [
        question,
        *(_cell(value, needed[0]) for value in generated),
        _cell(needed[0], None),
        _cell(scorer.get(question), needed[1]),
        _cell(needed[1], None),
    ]
    return f"| {' | '.join(cells)} |"


def _cell(value: float | None, least: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" + (" (short)" if least is not None and value < least else "")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(PIPELINES), default=list(PIPELINES))
    parser.add_argument("--folder", type=Path, default=FOLDER, help="holds the models' folders")
    parser.add_argument("--work", type=Path, default=WORK, help="rendered drawings")
    parser.add_argument("--icons", type=Path, help="folder that holds the four icon packages")
    parser.add_argument("--guidance", type=float, help="instead of each model's own")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the prompts")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sets, judge = prompt_sets(fraction=options.fraction), Judge(options.folder / "emoji-sd/scorer")
    scorer = scorer_shares(judge, load_sprites(options.work, icons=options.icons), sets)
    results = [
        evaluate(
            options.folder,
            name,
            sets,
            judge,
            guidance=options.guidance or GUIDANCE[name],
            steps=options.steps,
        )
        for name in options.models
    ]
    size = sum(megabytes(options.folder / name) for name in PIPELINES)
    if options.json:
        print(json.dumps({"scorer": scorer, "results": [asdict(r) for r in results]}, indent=2))
    else:
        print(table(results, scorer, size=size))


if __name__ == "__main__":
    sys.exit(main())
