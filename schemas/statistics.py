"""The tables of a run's statistics, one row per estimate.

Intervals are 95 % intervals; they and the tests resample captions (docs/statistics.md). Null means
unknown.
"""

from typing import Any

import pyarrow as pa

STATISTICS_VERSION = 4
"""Raised when a column or the meaning of one changes: statistics of other versions are ignored."""

DISCOVERY_RATE = 0.05
"""Largest q-value of a discovery."""


def _text(name: str) -> "pa.Field[Any]":
    return pa.field(name, pa.string(), nullable=False)


def _floats(*names: str) -> "list[pa.Field[Any]]":
    return [pa.field(name, pa.float64()) for name in names]


def _counts(*names: str) -> "list[pa.Field[Any]]":
    return [pa.field(name, pa.int64(), nullable=False) for name in names]


STATE_FIELDS: "list[pa.Field[Any]]" = [
    *map(_text, ("attribute", "part", "component", "token")),
    pa.field("step_start", pa.int32(), nullable=False),
    pa.field("step_stop", pa.int32(), nullable=False),
    _text("measure"),
]
"""The columns of a state: a component at certain tokens and steps, by attribute and measure."""

RANKING = pa.schema(
    [
        *_counts("rank"),
        *STATE_FIELDS,
        _text("intervention"),
        *_floats("mean_ie", "ie_low", "ie_high", "se_ie"),
        *_floats("mean_te", "te_low", "te_high"),
        *_floats("mean_recovery", "recovery_low", "recovery_high"),
        *_counts("num_captions", "num_seeds", "num_draws", "num_trials"),
        *_floats("p_value", "q_value"),
        *_floats("p_causal", "q_causal", "q_run"),
        pa.field("controls", pa.list_(pa.string()), nullable=False),
        pa.field("is_causal", pa.bool_(), nullable=False),
    ]
)
"""One row per state and intervention.

`rank` is 1 + the number of states whose interval lies above this one's, so that intervals that
overlap tie. `p_causal` belongs to the claim that the effect is above zero and, for a restored
state, that it passes the traced `controls`. `is_causal` is whether a restored state's `q_causal` is
under 0.05.
"""

CONTROLLED = pa.schema(
    [
        *STATE_FIELDS,
        _text("control"),
        *_floats("mean_ie"),
        *_floats("control_ie", "control_low", "control_high", "se_control"),
        *_floats("p_control", "q_control"),
        *_floats("mean_difference", "difference_low", "difference_high", "se_difference"),
        *_floats("p_difference", "q_difference"),
        *_counts("num_captions"),
    ]
)
"""One row per restored state and control, over the captions that have both."""

OVERLAP = pa.schema(
    [
        *map(_text, ("part", "measure", "attribute_a", "attribute_b")),
        *_counts("num_a", "num_b", "num_both"),
        *_floats("jaccard", "jaccard_low", "jaccard_high"),
    ]
)
"""One row per pair of attributes: how many causal states each has, and how many they share."""

CONCENTRATION = pa.schema(
    [
        *map(_text, ("attribute", "part", "measure")),
        *_counts("num_components"),
        *_floats("gini", "gini_low", "gini_high"),
        *_floats("effective_components", "effective_low", "effective_high"),
    ]
)
"""One row per attribute, part and measure: in how few components the positive effects are."""

STATISTICS = {
    "ranking": RANKING,
    "controlled_effects": CONTROLLED,
    "overlap": OVERLAP,
    "concentration": CONCENTRATION,
}
"""The tables by name."""
