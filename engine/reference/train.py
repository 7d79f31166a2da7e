"""Train the embedded model from nothing: `python -m engine.reference.train --stage all`.

Every stage keeps its checkpoint in the work folder and goes on from it when called again; stages
need those before them (unet: vae and text; export: all). Progress goes to stderr.
"""

import argparse
import os
from pathlib import Path

import torch
from open_clip.model import CLIP
from transformers import CLIPTokenizer

from engine.reference import captions, data, export, scorer, text, unet, vae

STAGES = ("data", "tokenizer", "vae", "text", "scorer", "decoder", "unet", "export")
WHOLE_WORDS = 2 / 3
"""Share of objects whose words the text encoder's tokenizer keeps whole."""


def build_tokenizer() -> CLIPTokenizer:
    """The text encoder's tokenizer."""
    return captions.build_tokenizer(whole_words=WHOLE_WORDS)


def train_denoiser(options: argparse.Namespace) -> None:
    """The UNet on latents of the finished VAE and text encoder."""
    unet.train_unet(latents(options), options.work, steps=options.unet_steps)


def latents(options: argparse.Namespace) -> unet.Latents:
    """Latents and embeddings of the finished first stages."""
    work: Path = options.work
    pool, tokenizer = data.load_pool(work, icons=options.icons), build_tokenizer()
    return unet.prepare(
        data.load_fixed_pool(work, icons=options.icons),
        work,
        vae=vae.train_vae(pool, work),
        encoder=text.train_text(pool, work, tokenizer=tokenizer),
        tokenizer=tokenizer,
    )


def export_folder(options: argparse.Namespace) -> None:
    """Write the shippable folder from the checkpoints as they are."""
    work: Path = options.work
    pool, tokenizer = data.load_pool(work, icons=options.icons), build_tokenizer()
    judge: CLIP = scorer.train_scorer(pool, work)
    pipeline = export.build_pipeline(
        vae=vae.train_decoder(pool, work, vae=vae.train_vae(pool, work)),
        encoder=text.train_text(pool, work, tokenizer=tokenizer),
        tokenizer=tokenizer,
        unet=unet.trained_unet(work),
        scale=latents(options).scale,
    )
    export.export_all(pipeline, judge, folder=options.folder)
    export.write_samples(pipeline, options.folder / "samples.png")


def run_stage(stage: str, options: argparse.Namespace) -> None:
    """One stage by name."""
    work: Path = options.work
    pool = data.load_pool(work, icons=options.icons)
    if stage == "tokenizer":
        captions.save_tokenizer(build_tokenizer(), work / "tokenizer")
    elif stage == "vae":
        vae.train_vae(pool, work)
    elif stage == "text":
        text.train_text(pool, work, tokenizer=build_tokenizer())
    elif stage == "scorer":
        scorer.train_scorer(pool, work)
    elif stage == "decoder":
        vae.train_decoder(pool, work, vae=vae.train_vae(pool, work))
    elif stage == "unet":
        train_denoiser(options)
    elif stage == "export":
        export_folder(options)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stage", choices=(*STAGES, "all"), default="all")
    parser.add_argument("--work", type=Path, default=Path(".build/emoji"), help="checkpoints")
    parser.add_argument("--icons", type=Path, help="folder that holds the four icon packages")
    parser.add_argument("--folder", type=Path, default=export.FOLDER, help="what is shipped")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--unet-steps", type=int, default=unet.TRAIN_STEPS, help="length of the learning-rate curve"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    for stage in STAGES if options.stage == "all" else (options.stage,):
        run_stage(stage, options)


if __name__ == "__main__":
    main()
