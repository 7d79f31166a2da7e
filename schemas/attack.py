"""What an attack on an edit has measured, as it is written: one row a concept, model and prompt."""

from enum import StrEnum

import pyarrow as pa

ATTACK_VERSION = 1
"""Raised when a column or the meaning of one changes; part of every row's id."""


class Attack(StrEnum):
    """What stands in the place of the concept in the prompt."""

    PLAIN = "plain"
    """The concept itself: no attack."""
    RANDOM = "random"
    """A random embedding: where the embedding attack starts."""
    EMBEDDING = "embedding"
    """The embedding that the attack found."""
    PROMPT = "prompt"
    """The words that the search found."""


class Side(StrEnum):
    """Which model is attacked."""

    UNEDITED = "unedited"
    EDITED = "edited"


ATTACKS = pa.schema(
    [
        pa.field("attack_id", pa.string(), nullable=False),
        pa.field("concept", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("side", pa.string(), nullable=False),
        pa.field("attack", pa.string(), nullable=False),
        pa.field("shown", pa.int32(), nullable=False),
        pa.field("images", pa.int32(), nullable=False),
        pa.field("success", pa.float64(), nullable=False),
        pa.field("low", pa.float64(), nullable=False),
        pa.field("high", pa.float64(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("steps", pa.int32(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("objective_before", pa.float64()),
        pa.field("objective_after", pa.float64()),
    ],
    metadata={b"dqf.attack_version": str(ATTACK_VERSION)},
)
"""`success` is the share of images that show the concept, `low` and `high` its 95 % interval.

The objective is the denoising loss of an embedding, or the distance of a prompt's encoding;
`seconds` is the time of the search alone. `attack_id` is a hash of the edit, the models and every
setting.
"""
