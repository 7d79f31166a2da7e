"""How a screen estimates the scores of patched runs."""

from enum import StrEnum


class Screen(StrEnum):
    """A gradient that estimates, in one pass, the scores of all patched runs of a unit.

    A patched run's score is that of its base run, plus the change of the activation times the
    gradient.
    """

    ATTRIBUTION = "attribution"
    """Attribution patching: the derivative (Nanda 2023)."""
    RELP = "relp"
    """Relevance patching: rules of layer-wise relevance propagation in the derivative's place
    (Jafari et al. 2025)."""
