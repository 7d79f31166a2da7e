"""The time of an edit at full width: python -m bench.editing.speed [--counts 1 10 100 1000].

CLIP ViT-L's text encoder with random weights and CLIP's own tokenizer; the model and its sums over
general captions, which are computed once for a model, are already loaded. Our edit, the median of
three runs, is compared with one run of the published procedure in the same process: for every
prompt pair a forward pass of the whole encoder on 77 positions, then fp32 sums of all pairs and an
fp32 inverse. Printed: seconds of both, their ratio, and the process's peak memory, which must not
grow with the concepts. First, for one solve at the width of `--solve-width` inputs (the largest of
SD 1's and SDXL's encoders is 1280, of IF's 4096), the seconds of the solve, of its Cholesky
factorization alone, and of the same solve with an identity as its basis of free inputs.
"""

import argparse
import itertools
import resource
import time
import timeit
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from bench.models import build_sd1
from engine.editing.closed_form import solve_changes, sums_of
from engine.editing.covariance import computed_sums
from engine.editing.published import OPENINGS, RIDGE
from engine.editing.solve import solve_edit
from engine.model.hooks import HookPoint, Side, recording
from engine.model.model import Diffusion, TextEncoder
from engine.model.tokens import find_subjects
from engine.model.vocabulary import OBJECTS, Phrasebook
from schemas.caption import Caption
from schemas.concept import Concept
from schemas.edit_settings import EditSettings

WORDS = ("golden", "ancient", "wooden", "tiny", "frozen", "striped", "paper", "glass", "rusty",
         "woven", "painted", "hollow", "folding", "floating", "broken", "velvet")  # fmt: skip


def build_clip() -> Diffusion:
    """Return SD 1's networks with random weights and CLIP's own tokenizer of 49,408 tokens."""
    source = SimpleTokenizer()
    tokenizer = CLIPTokenizer(
        vocab=dict(source.encoder), merges=cast("Any", list(source.bpe_ranks)), model_max_length=77,
        bos_token="<start_of_text>", eos_token="<end_of_text>", pad_token="<end_of_text>",
        unk_token="<end_of_text>",
    )  # fmt: skip
    model = build_sd1()
    built: Any = model.text_encoder
    config = CLIPTextConfig.from_dict(
        {
            **built.config.to_dict(),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
    )
    torch.manual_seed(0)
    encoder = CLIPTextModel(config).eval().requires_grad_(False)
    return replace(
        model, encoders=(TextEncoder(name="text_encoder", module=encoder, tokenizer=tokenizer),)
    )


def concepts_of(count: int) -> list[Concept]:
    """Return `count` distinct objects of two or three words, all of which become "object"."""
    names = (f"{word} {name}" for word, name in itertools.product(WORDS, OBJECTS))
    return [Concept(concept=name) for name in itertools.islice(dict.fromkeys(names), count)]


@torch.inference_mode()
def published(model: Diffusion, concepts: Sequence[Concept]) -> torch.Tensor:
    """Return the edited weight by the published procedure, without any optimization."""
    encoder: Any = model.text_encoder
    tokenizer = model.tokenizer
    projection: nn.Linear = encoder.encoder.layers[0].self_attn.out_proj
    width = projection.in_features
    right = RIDGE * projection.weight
    system = RIDGE * torch.eye(width)
    for concept, opening in itertools.product(concepts, OPENINGS):
        captions = [
            Caption(caption=f"{opening}{text}", subject=text, attribute="object")
            for text in (concept.concept, concept.replacement_text)
        ]
        ids_2T, (old, new) = find_subjects(tokenizer, captions)
        spots = [HookPoint(projection, Side.INPUT), HookPoint(projection)]
        with recording(spots) as passed:
            encoder(ids_2T)
        key_2TD, value_2TE = (passed[spot][0] for spot in spots)
        for place in range(old.last, ids_2T.shape[1]):
            facing = min(place + new.last - old.last, ids_2T.shape[1] - 1)
            right = right + torch.outer(value_2TE[1, facing], key_2TD[0, place])
            system = system + torch.outer(key_2TD[0, place], key_2TD[0, place])
    return right @ torch.inverse(system)


def solve_seconds(width: int) -> tuple[float, float, float]:
    """Return the seconds of a solve, of its Cholesky alone, and of it with an identity basis.

    The projection has `width` inputs and outputs; each time is the least of five.
    """
    generator = torch.Generator().manual_seed(0)
    key_PD, change_PE = torch.randn(2, 2 * width, width, dtype=torch.float64, generator=generator)
    ones_P = torch.ones(len(key_PD), dtype=torch.float64)
    edits = sums_of(key_PD, {"projection": change_PE}, ones_P)
    identity_DD = torch.eye(width, dtype=torch.float64)
    work: tuple[Callable[[], object], ...] = (
        lambda: solve_changes(edits, ridge=1e-2),
        lambda: torch.linalg.cholesky(edits.gram_DD),
        lambda: solve_changes(edits, ridge=1e-2, free_DR=identity_DD),
    )
    times = [min(timeit.repeat(each, number=1, repeat=5)) for each in work]
    return times[0], times[1], times[2]


def peak_mib() -> float:
    """Return this process's peak memory in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--layer", nargs="+", default=["text_encoder.layers.0.self_attn"])
    parser.add_argument("--baseline-up-to", type=int, default=100, help="it takes 1 s a concept")
    parser.add_argument("--solve-width", type=int, default=1536)
    options = parser.parse_args()
    solve_s, cholesky_s, identity_s = solve_seconds(options.solve_width)
    print(
        f"solve at D = {options.solve_width}: {solve_s:.3f} s, its Cholesky {cholesky_s:.3f} s; "
        f"with an identity as basis {identity_s:.3f} s, {identity_s / solve_s:.1f} times as long"
    )
    model = build_clip()
    settings = EditSettings(components=tuple(options.layer))
    first = options.layer[0]
    general = {first: computed_sums(model, first, Phrasebook())}
    solve_edit(model, concepts_of(1), book=Phrasebook(), settings=settings, general=general)
    print(f"torch threads {torch.get_num_threads()}, peak before {peak_mib():.0f} MiB")
    for count in options.counts:
        concepts = concepts_of(count)
        runs = []
        for _ in range(3):
            start = time.perf_counter()
            solved = solve_edit(
                model, concepts, book=Phrasebook(), settings=settings, general=general
            )
            runs.append((time.perf_counter() - start, solved))
        ours, solved = sorted(runs, key=lambda run: run[0])[1]
        line = (
            f"{len(concepts)} concepts: {ours:.2f} s (keys {solved.key_seconds:.2f}, solve "
            f"{solved.solve_seconds:.2f}), {solved.key_pairs} key pairs, peak {peak_mib():.0f} MiB"
        )
        if count <= options.baseline_up_to:
            start = time.perf_counter()
            published(model, concepts)
            theirs = time.perf_counter() - start
            line += f"; published {theirs:.1f} s, ratio {theirs / ours:.0f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
