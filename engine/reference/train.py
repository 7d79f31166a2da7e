"""Train the embedded models from scratch: `python -m engine.reference.train --stage all`.

Every stage keeps its checkpoint in the work folder and continues from it when called again; a stage
needs the stages before it. Progress goes to stderr.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextModelWithProjection

from engine.reference import dit, export, latents, scorer, text, unet, vae
from engine.reference.ceiling import check_ceiling
from engine.reference.drawings import load_sprites

WORK = Path(os.environ.get("DQF_REFERENCE_WORK", ".build/reference"))
"""The folder of checkpoints, unless `--work` names another."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """The stages by name; each first trains the stages that it needs, or reads their
    checkpoints."""

    work: Path
    icons: Path | None
    folder: Path

    @cached_property
    def sprites(self) -> torch.Tensor:
        """The rendered drawings."""
        return load_sprites(self.work, icons=self.icons)

    @cached_property
    def vae(self) -> AutoencoderKL:
        """The finished autoencoder."""
        trained = vae.train_vae(self.sprites, self.work)
        return vae.train_decoder(self.sprites, self.work, vae=trained)

    @cached_property
    def latents(self) -> latents.Latents:
        """The denoisers' training data."""
        return latents.prepare(self.vae, self.sprites, self.work)

    def encoder(self, recipe: text.EncoderRecipe) -> CLIPTextModelWithProjection:
        """Return a finished text encoder."""
        return text.train_text(self.sprites, self.work, recipe)

    def ceiling(self) -> None:
        """Stop unless the scorer recognizes decoded drawings: no denoiser can do better."""
        check_ceiling(
            scorer.train_scorer(self.sprites, self.work),
            self.vae,
            self.sprites,
            folder=self.work / "scorer",
        )

    def unet(self) -> None:
        """Train emoji-sd's denoiser."""
        unet.train_unet(
            self.latents,
            self.work,
            encoder=self.encoder(text.FIRST),
            tokenizer=text.FIRST.tokenizer(),
        )

    def dit(self) -> None:
        """Train emoji-dit's denoiser."""
        conditioning = dit.TextConditioning(
            encoders=(self.encoder(text.FIRST), self.encoder(text.SECOND)),
            tokenizers=(text.FIRST.tokenizer(), text.SECOND.tokenizer()),
        )
        dit.train_dit(self.latents, self.work, conditioning=conditioning)

    def export(self) -> None:
        """Write the shipped folders from the present checkpoints."""
        judge = scorer.train_scorer(self.sprites, self.work)
        parts = export.Parts(
            vae=self.vae,
            scale=self.latents.scale,
            encoders=(self.encoder(text.FIRST), self.encoder(text.SECOND)),
            tokenizers=(text.FIRST.tokenizer(), text.SECOND.tokenizer()),
        )
        for name in export.export_all(parts, judge, work=self.work, folder=self.folder):
            export.write_samples(self.folder, name)


def stages(training: Training) -> dict[str, Callable[[], object]]:
    """Return every stage in order by name."""
    return {
        "data": lambda: training.sprites,
        "vae": lambda: vae.train_vae(training.sprites, training.work),
        "decoder": lambda: training.vae,
        "scorer": lambda: scorer.train_scorer(training.sprites, training.work),
        "text": lambda: training.encoder(text.FIRST),
        "text_2": lambda: training.encoder(text.SECOND),
        "ceiling": training.ceiling,
        "latents": lambda: training.latents,
        "unet": training.unet,
        "dit": training.dit,
        "export": training.export,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stage", default="all", help="a stage, or several with commas, or all")
    parser.add_argument("--work", type=Path, default=WORK, help="checkpoints")
    parser.add_argument("--icons", type=Path, help="folder that holds the four icon packages")
    parser.add_argument("--folder", type=Path, default=export.FOLDER, help="what is shipped")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    training = Training(work=options.work, icons=options.icons, folder=options.folder)
    listed = stages(training)
    chosen = list(listed) if options.stage == "all" else options.stage.split(",")
    if unknown := [name for name in chosen if name not in listed]:
        parser.error(f"unknown stage {', '.join(unknown)}: there are {', '.join(listed)}")
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        listed[name]()


if __name__ == "__main__":
    main()
