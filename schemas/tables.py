"""The Arrow tables that a run's Parquet files hold, with their version."""

import pyarrow as pa

from schemas.columns import fields

SCHEMA_VERSION = 7
"""Raised when a column or the meaning of one changes; part of every unit's id. There was no 4."""
VERSION_KEY = b"dqf.schema_version"
"""Key of every table's metadata that holds the version."""


def _table(columns: str) -> pa.Schema:
    return pa.schema(fields(columns), metadata={VERSION_KEY: str(SCHEMA_VERSION)})


SCORES = _table(
    "unit_id caption_id seed draw noise_sigmas part component intervention token position "
    "token_text step_start step_stop path patch_kind measure estimate clean corrupted patched"
)
"""One row per patched run and measure; `patched` is the patched run's value."""

CAPTIONS = _table("caption_id caption subject attribute target counterfactual")
"""One row per caption of a plan."""

SLABS = _table("slab part components windows")
"""One row per slab of components and windows; its number is its place in the plan."""

UNITS = _table("ordinal unit_id chunk caption_id seed draw noise_sigmas slab")
"""One row per unit of a plan, in the order of work."""

COMPONENTS = _table(
    "component part kind network_order layer num_parameters has_contribution is_cut_point"
)
"""One row per component of the traced model."""
