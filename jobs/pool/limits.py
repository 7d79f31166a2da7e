"""How long a unit may take and how many may fail."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a unit, and a run, is given up."""

    unit_s: float = 3600.0
    """Seconds that a unit may take."""
    failed: float = 0.1
    """Share of the units done that may have failed."""
