"""How well a batch edit works: python -m bench.edit_batch [--json].

Removes a batch of objects of emoji-sd, each into another object, and prints what the scorer sees in
images of unseen prompts before and after: removed objects still recognised, others still
recognised, and the harmonic mean (see engine/evaluation.py).
"""

import argparse
import json
import random
from dataclasses import asdict
from pathlib import Path

import torch

from engine.edit import EditSettings, replaced_weight
from engine.evaluation import UNSEEN_TEMPLATES, recognised, recognition, unseen_prompts
from engine.folder import source_folder
from engine.models import Diffusion, open_model
from engine.prompts import Phrasebook, read_phrasebook
from engine.registry import default_scorer
from engine.sampling import generate
from engine.scoring import Scorer, open_scorer
from jobs.edit import EditJob, solve
from jobs.edit_report import Located
from jobs.edit_request import default_numerics
from schemas.concept import Concept
from schemas.plan import Numerics


def choose_concepts(book: Phrasebook, count: int, *, seed: int) -> tuple[Concept, ...]:
    """Return `count` objects at random, each with a kept object as its target."""
    names = random.Random(seed).sample(book.objects, 2 * count)
    return tuple(
        Concept(concept=name, target=target)
        for name, target in zip(names[:count], names[count:], strict=True)
    )


def see(
    model: Diffusion, scorer: Scorer, book: Phrasebook, *, numerics: Numerics, templates: int
) -> tuple[list[bool], list[str]]:
    """Return whether each unseen prompt's image is recognised, and what it said."""
    prompts, said = unseen_prompts(book.objects, templates=UNSEEN_TEMPLATES[:templates])
    images_RCHW = generate(model, prompts, seeds=list(range(len(prompts))), numerics=numerics)
    return recognised(images_RCHW, said, names=book.objects, scorer=scorer), said


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Return the figures of one edit."""
    model = open_model(options.model)
    book = read_phrasebook(source_folder(options.model))
    scorer = open_scorer(options.scorer or default_scorer(options.model))
    numerics = default_numerics(options.model)
    if options.steps:
        numerics = numerics.model_copy(update={"steps": options.steps})
    job = EditJob(
        concepts=choose_concepts(book, options.concepts, seed=options.seed),
        model=options.model,
        located=Located(component=options.layer),
        out=Path(),
        settings=EditSettings(ridge=options.ridge, preserve=options.preserve),
        numerics=numerics,
        scorer="",
    )
    solved = solve(model, job, book=book)
    removed = [concept.concept for concept in job.concepts]
    found: dict[str, object] = {
        "concepts": {c.concept: c.target_text for c in job.concepts},
        "layer": options.layer,
        "settings": asdict(job.settings),
        "key_seconds": solved.key_seconds,
        "solve_seconds": solved.solve_seconds,
    }
    for name, weight_ED in (("before", solved.projection.weight.data), ("after", solved.weight)):
        with replaced_weight(solved.projection, weight_ED):
            seen, said = see(model, scorer, book, numerics=numerics, templates=options.templates)
        shares = recognition(seen, said, removed=removed)
        found[name] = {**asdict(shares), "harmonic_mean": shares.harmonic_mean}
    return found


def main() -> None:
    """Command line."""
    defaults = EditSettings()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="emoji-sd")
    parser.add_argument("--scorer")
    parser.add_argument("--layer", default="text_encoder.layers.0.self_attn")
    parser.add_argument("--concepts", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, help="the model's own by default")
    parser.add_argument("--templates", type=int, default=2, help="unseen prompts per object")
    parser.add_argument("--ridge", type=float, default=defaults.ridge)
    parser.add_argument("--preserve", type=float, default=defaults.preserve)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with torch.inference_mode():
        found = measure(options)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for side in ("before", "after"):
        shares: dict[str, float] = found[side]  # type: ignore[assignment]
        print(f"{side:7} " + "  ".join(f"{name} {value:.3f}" for name, value in shares.items()))
    print(f"keys {found['key_seconds']:.2f} s, solve {found['solve_seconds']:.3f} s")


if __name__ == "__main__":
    main()
