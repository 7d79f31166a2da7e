"""The number of prompts that an edit is evaluated on."""

from enum import StrEnum


class PromptSet(StrEnum):
    """A choice of prompts."""

    FULL = "full"
    SMALL = "small"
    """For sweeps: one prompt per efficacy group and kept name, and no others."""
