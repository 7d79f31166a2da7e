"""How many prompts an edit is evaluated on."""

from enum import StrEnum


class PromptSet(StrEnum):
    """A choice of prompts."""

    FULL = "full"
    SMALL = "small"
    """For sweeps: one prompt an efficacy group and a kept name, none beside the concepts."""
