"""Operations and memory of tracing each published transformer: python -m bench.one_gpu.

The table of docs/one-gpu.md. Each row is a model at 512 x 512 pixels, or at its own size where that
is said, with its own steps and guidance: the weights of its text encoders and its denoiser in
bfloat16, and the floating-point operations of one caption's denoiser trace, of every live component
that is traced by default, at all steps. Operations are counted in a forward pass without weights.
"""

import argparse

import torch

from cli.printing.output import Format, print_rows
from engine.model.components import list_components
from engine.model.model import Skeleton
from engine.model.registry import built_in
from engine.model.shapes import row_operations
from schemas.component import PAPER_KINDS, Part
from tests.models.full_sizes import FULL_SIZES

CELLS = {
    "pixart-sigma": 64,
    "sana": 32,
    "sana-sprint": 32,
    "sd-3": 64,
    "sd-3.5-medium": 64,
    "sd-3.5-large": 64,
    "flux-schnell": 64,
    "flux-dev": 64,
    "flux2-dev": 32,
    "flux2-klein-4b": 32,
    "flux2-klein-9b": 32,
    "z-image": 64,
    "z-image-turbo": 64,
    "qwen-image": 64,
}
"""Latent cells along a side: 512 pixels, and 1024 of SANA, whose VAE has 32 pixels a cell."""
REFERENCES = 3
"""Rows of the clean run, the corrupted run and the bound of all text entries together."""
BYTES = 2
"""Bytes of a weight in bfloat16."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--model", nargs="+", default=list(CELLS), choices=CELLS)
    parser.add_argument("--format", type=Format, default=Format.TABLE, choices=list(Format))
    options = parser.parse_args()
    print_rows([row_of(name) for name in options.model], options.format)


def row_of(name: str) -> dict[str, object]:
    """Return a model's row; weights in GB, operations in 1e12 and 1e15."""
    model, known = FULL_SIZES[name].open(name), built_in(name)
    assert known is not None
    is_guided = known.guidance > 1 and model.family.has_unconditional(model)
    of_row = row_operations(model, height=CELLS[name], width=CELLS[name])
    rows = REFERENCES + count_traced(model)
    return {
        "model": name,
        "text_gigabytes": sum(_gigabytes(encoder.module) for encoder in model.encoders),
        "denoiser_gigabytes": _gigabytes(model.denoiser),
        "rows": rows,
        "steps": known.steps,
        "halves": 1 + is_guided,
        "teraflops_a_row": of_row / 1e12,
        "petaflops_a_caption": rows * known.steps * (1 + is_guided) * of_row / 1e15,
    }


def count_traced(model: Skeleton) -> int:
    """Return the number of the denoiser's components that are traced where none is named."""
    found = list_components(model, PAPER_KINDS)
    return sum(c.part is Part.DENOISER and not c.is_dead for c in found)


def _gigabytes(network: torch.nn.Module) -> float:
    return BYTES * sum(weight.numel() for weight in network.parameters()) / 1e9


if __name__ == "__main__":
    main()
