"""Limits on the time of a unit and on failures."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits at which a unit or a run is given up."""

    unit_s: float = 3600.0
    """Seconds that a unit may take."""
    failed: float = 0.1
    """Share of the units done that may have failed."""
