"""The Arrow tables that a run's Parquet files hold, with their version."""

import pyarrow as pa

SCHEMA_VERSION = 5
"""Raised when a column or the meaning of one changes; part of every unit's id. There was no 4."""
VERSION_KEY = b"dqf.schema_version"
"""Key of every table's metadata that holds the version."""

SCORES = pa.schema(
    [
        pa.field("unit_id", pa.string(), nullable=False),
        pa.field("caption_id", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("draw", pa.int32(), nullable=False),
        pa.field("part", pa.string(), nullable=False),
        pa.field("component", pa.string(), nullable=False),
        pa.field("intervention", pa.string(), nullable=False),
        pa.field("token", pa.string(), nullable=False),
        pa.field("position", pa.int32()),
        pa.field("token_text", pa.string()),
        pa.field("step_start", pa.int32(), nullable=False),
        pa.field("step_stop", pa.int32(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("patch_kind", pa.string(), nullable=False),
        pa.field("measure", pa.string(), nullable=False),
        pa.field("estimate", pa.string(), nullable=False),
        pa.field("clean", pa.float64(), nullable=False),
        pa.field("corrupted", pa.float64(), nullable=False),
        pa.field("patched", pa.float64(), nullable=False),
    ],
    metadata={VERSION_KEY: str(SCHEMA_VERSION)},
)
"""One row per patched run and measure; `patched` is the patched run's value.

`token` is `all` in the denoiser, a token role or a position in the text encoder; steps are
evaluations of the denoiser, `step_stop` excluded. Values are the measure's: cosines for
CLIPScores. `schemas.columns` says what every column holds.
"""

CAPTIONS = pa.schema(
    [
        pa.field("caption_id", pa.string(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("subject", pa.string(), nullable=False),
        pa.field("attribute", pa.string(), nullable=False),
        pa.field("target", pa.string()),
        pa.field("counterfactual", pa.string()),
    ],
    metadata={VERSION_KEY: str(SCHEMA_VERSION)},
)
"""One row per caption of a plan."""

SLABS = pa.schema(
    [
        pa.field("slab", pa.int32(), nullable=False),
        pa.field("part", pa.string(), nullable=False),
        pa.field("components", pa.list_(pa.string()), nullable=False),
        pa.field("windows", pa.list_(pa.string()), nullable=False),
    ],
    metadata={VERSION_KEY: str(SCHEMA_VERSION)},
)
"""One row per slab of components and windows; its number is its place in the plan."""

UNITS = pa.schema(
    [
        pa.field("ordinal", pa.int64(), nullable=False),
        pa.field("unit_id", pa.string(), nullable=False),
        pa.field("chunk", pa.int32(), nullable=False),
        pa.field("caption_id", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("draw", pa.int32(), nullable=False),
        pa.field("slab", pa.int32(), nullable=False),
    ],
    metadata={VERSION_KEY: str(SCHEMA_VERSION)},
)
"""One row per unit of a plan, in the order of work."""

COMPONENTS = pa.schema(
    [
        pa.field("component", pa.string(), nullable=False),
        pa.field("part", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("network_order", pa.int32(), nullable=False),
        pa.field("layer", pa.int32(), nullable=False),
        pa.field("num_parameters", pa.int64(), nullable=False),
    ],
    metadata={VERSION_KEY: str(SCHEMA_VERSION)},
)
"""One row per component of the traced model."""
