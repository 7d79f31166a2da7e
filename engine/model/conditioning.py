"""The denoiser's conditioning on captions, and where each text encoder stands in it.

Shapes: R rows, L token positions, D text width, P pooled width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPlace:
    """Where the token positions of a text encoder stand among the text rows."""

    encoder: int = 0
    """Number of the encoder in the model's order."""
    start: int = 0
    """The row of the first position that is kept."""
    skipped: int = 0
    """Positions at the start that become no row: those of a template."""
    length: int | None = None
    """Rows of the encoder, by default all."""
    width: int | None = None
    """Channels at the start of the rows that hold the encoder's output, by default all; the others
    are zero."""

    def row(self, position: int) -> int:
        """Return the text row of a token position."""
        return self.start + position - self.skipped


EVERYWHERE = (TextPlace(),)
"""The text rows are the first encoder's positions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditioning:
    """The denoiser's conditioning on captions, one row per caption."""

    text_RLD: torch.Tensor
    """Rows for attention: `encoder_hidden_states`."""
    pooled_RP: torch.Tensor | None = None
    """A pooled embedding of the whole caption (SDXL, SD3, FLUX.1)."""
    mask_RL: torch.Tensor | None = None
    """1 where a text row is read, 0 at padding; None where all are read."""
    places: tuple[TextPlace, ...] = EVERYWHERE
    """Where each encoder's token positions stand among the text rows."""

    def __len__(self) -> int:
        return len(self.text_RLD)

    def take(self, rows: Sequence[int]) -> "Conditioning":
        """Return the conditioning of the given rows, in that order."""
        index = list(rows)
        return self._with(lambda tensor: tensor[index])

    def _with(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Conditioning":
        return Conditioning(
            text_RLD=change(self.text_RLD),
            pooled_RP=None if self.pooled_RP is None else change(self.pooled_RP),
            mask_RL=None if self.mask_RL is None else change(self.mask_RL),
            places=self.places,
        )


def joined(parts: Sequence[Conditioning]) -> Conditioning:
    """Return the rows of all parts, one after another."""
    pooled = [part.pooled_RP for part in parts if part.pooled_RP is not None]
    masks = [part.mask_RL for part in parts if part.mask_RL is not None]
    return Conditioning(
        text_RLD=torch.cat([part.text_RLD for part in parts]),
        pooled_RP=torch.cat(pooled) if pooled else None,
        mask_RL=torch.cat(masks) if masks else None,
        places=parts[0].places,
    )
