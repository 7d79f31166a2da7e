"""The tables of a run's statistics, one row per estimate.

Intervals are 95 % intervals; they and the tests resample captions (docs/statistics.md). Null means
unknown.
"""

import pyarrow as pa

from schemas.columns import fields
from schemas.views import STATE

STATISTICS_VERSION = 10
"""Raised when a column or the meaning of one changes: statistics of other versions are ignored."""

DISCOVERY_RATE = 0.05
"""Largest q-value of a discovery."""


RANKING = pa.schema(
    fields(
        f"rank {' '.join(STATE)} intervention mean_ie ie_low ie_high se_ie mean_te te_low te_high "
        "mean_recovery recovery_low recovery_high num_captions num_seeds num_draws num_trials "
        "p_value q_value p_causal q_causal q_run controls is_causal"
    )
)
"""One row per state and intervention; `is_causal` holds of restored states alone."""

CONTROLLED = pa.schema(
    fields(
        f"{' '.join(STATE)} control mean_ie control_ie control_low control_high se_control "
        "p_control q_control mean_difference difference_low difference_high se_difference "
        "p_difference q_difference num_captions"
    )
)
"""One row per restored state and control, over the captions that have both."""

OVERLAP = pa.schema(
    fields(
        "part patch_kind noise_sigmas measure attribute_a attribute_b num_a num_b num_both jaccard "
        "jaccard_low jaccard_high similarity similarity_ceiling p_differs q_differs"
    )
)
"""One row per pair of attributes: how many causal states each has and how many they share, and
whether their effects have one profile over components."""

CONCENTRATION = pa.schema(
    fields(
        "attribute part patch_kind noise_sigmas measure num_components gini gini_low gini_high "
        "effective_components effective_low effective_high effective_share noise_low noise_high "
        "p_noise"
    )
)
"""One row per attribute, part, kind of patch, noise and measure: in how few components the positive
effects are."""

_OF_SETS = "patch_kind noise_sigmas measure intervention"
_OVER_CAPTIONS = (
    "mean_ie ie_low ie_high se_ie mean_te te_low te_high mean_recovery recovery_low recovery_high "
    "p_value num_captions num_trials"
)
SET_EFFECTS = pa.schema(
    fields(f"attribute set_name curve size part {_OF_SETS} {_OVER_CAPTIONS}"),
)
"""One row per set and intervention; its part is `both` where its components are of both."""

SET_CURVES = pa.schema(
    fields(f"attribute part curve size {_OF_SETS} num_sets {_OVER_CAPTIONS}"),
)
"""One row per curve, size and intervention: sets of one size are averaged caption by caption."""

STATISTICS = {
    "ranking": RANKING,
    "controlled_effects": CONTROLLED,
    "overlap": OVERLAP,
    "concentration": CONCENTRATION,
    "set_effects": SET_EFFECTS,
    "set_curves": SET_CURVES,
}
"""The tables by name."""
