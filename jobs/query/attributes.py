"""How an attribute's effects are spread over components, and how two attributes compare.

Shapes: S states of a family, K components, C captions (suffixes `_SC`, `_KC`, `_S`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.statistics.causal_sets import (
    UNKNOWN,
    Bits,
    concentration,
    jaccard,
    jaccard_interval,
)
from engine.statistics.inference import MIN_CAPTIONS, Array, draws_of
from engine.statistics.profiles import ProfilePair, compare_profiles, share_of_noise
from jobs.query.caption_means import Family, Places

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class CausalSet:
    """The causal states of a family, the resamples of captions in which they are causal, and the
    profile of its effects."""

    attribute: str
    captions: tuple[str, ...]
    places_S: Places
    is_causal_S: BoolArray
    bits_SB: Bits
    components: tuple[str, ...]
    """The components that were restored, in alphabetical order."""
    profile_KC: Array
    """Each caption's restored effect of each component, over all of its states together."""


def profile(restored_SC: Array, components: Sequence[str]) -> tuple[tuple[str, ...], Array]:
    """Return the restored components and the sum of each one's states, caption by caption,
    profile_KC.

    `components` names each state's. NaN is a caption that no state of a component was traced for.
    """
    names, component_S = np.unique(np.asarray(components, dtype=np.str_), return_inverse=True)
    is_of_KS = np.arange(len(names))[:, None] == component_S
    has_KC = is_of_KS @ ~np.isnan(restored_SC)
    sums_KC = is_of_KS.astype(np.float64) @ np.nan_to_num(restored_SC)
    is_restored_K = has_KC.any(1)
    profile_KC = np.where(has_KC, sums_KC, np.nan)[is_restored_K]
    return tuple(names[is_restored_K].tolist()), profile_KC


def concentration_row(
    family: Family, restored_SC: Array, components: Sequence[str]
) -> dict[str, Any]:
    """Return the row of `concentration` of a family; `components` names each state's."""
    found = concentration(restored_SC, components, draws_of(family.captions))
    share = found.effective / found.num_components
    noise = share_of_noise(restored_SC, components, family.captions, share=share)
    return {
        "attribute": family.attribute,
        "part": family.part,
        "patch_kind": family.patch_kind,
        "noise_sigmas": family.noise_sigmas,
        "measure": family.measure,
        "num_components": found.num_components,
        "gini": found.gini,
        "gini_low": found.gini_interval[0],
        "gini_high": found.gini_interval[1],
        "effective_components": found.effective,
        "effective_low": found.effective_interval[0],
        "effective_high": found.effective_interval[1],
        "effective_share": share,
        "noise_low": noise.interval[0],
        "noise_high": noise.interval[1],
        "p_noise": noise.p_value,
    }


def overlap_row(
    part: str,
    patch_kind: str,
    noise_sigmas: float,
    measure: str,
    one: CausalSet,
    other: CausalSet,
) -> dict[str, Any]:
    """Return the row of `overlap` of two attributes, without its q-value."""
    places = np.union1d(one.places_S, other.places_S)
    is_one, is_other = (
        _on(places, one.places_S, one.is_causal_S),
        _on(places, other.places_S, other.is_causal_S),
    )
    can_resample = min(len(one.captions), len(other.captions)) >= MIN_CAPTIONS
    interval, estimate = UNKNOWN, jaccard(is_one, is_other)
    if can_resample and is_one.any() and is_other.any():
        interval = jaccard_interval(
            _on(places, one.places_S, one.bits_SB),
            _on(places, other.places_S, other.bits_SB),
            estimate=estimate,
        )
    profiles = _compared(one, other)
    return {
        "part": part,
        "patch_kind": patch_kind,
        "noise_sigmas": noise_sigmas,
        "measure": measure,
        "attribute_a": one.attribute,
        "attribute_b": other.attribute,
        "num_a": int(is_one.sum()),
        "num_b": int(is_other.sum()),
        "num_both": int((is_one & is_other).sum()),
        "jaccard": estimate,
        "jaccard_low": interval[0],
        "jaccard_high": interval[1],
        "similarity": profiles.similarity,
        "similarity_ceiling": profiles.ceiling,
        "p_differs": profiles.p_value,
        "q_differs": np.nan,
    }


def _compared(one: CausalSet, other: CausalSet) -> ProfilePair:
    """Return how two profiles compare, over the components of both and the captions that have
    all."""
    both = sorted(set(one.components) & set(other.components))
    cut = [_complete(of, both) for of in (one, other)]
    return compare_profiles(cut[0][0], cut[1][0], (cut[0][1], cut[1][1]))


def _complete(of: CausalSet, components: Sequence[str]) -> tuple[Array, tuple[str, ...]]:
    rows = [of.components.index(name) for name in components]
    kept_KC = of.profile_KC[rows]
    (whole,) = np.nonzero(~np.isnan(kept_KC).any(axis=0))
    return kept_KC[:, whole], tuple(of.captions[column] for column in whole.tolist())


def _on(places: Places, own: Places, values: NDArray[Any]) -> NDArray[Any]:
    """Return a set's values at `places`, zero where it has none."""
    spread = np.zeros((len(places), *values.shape[1:]), values.dtype)
    spread[np.searchsorted(places, own)] = values
    return spread
