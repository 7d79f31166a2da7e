"""Profiles over components: the tests hold their level where nothing differs, and find what does.

Captions share half of their noise over all components, and components differ in spread.
"""

import numpy as np
import pytest

from engine.statistics.causal_sets import concentration
from engine.statistics.inference import Array, draws_of
from engine.statistics.profiles import ProfilePair, compare_profiles, share_of_noise
from tests.covering import covering
from tests.made_up.effects import names

COMPONENTS = 29
RUNS = 60
STRONG = [3, 2, 2, 1.5, 1, 1, 1]


def profile(*places: int) -> Array:
    """Return a profile, means_K1, with the STRONG effects at these places from the first on."""
    means_K1 = np.zeros((COMPONENTS, 1))
    means_K1[list(places), 0] = STRONG
    return means_K1


ONE = profile(*range(7))
OTHER = profile(*range(10, 17))
HALF = profile(0, 1, 2, 20, 21, 22, 23)
NONE = np.zeros((COMPONENTS, 1))


def effects(generator: np.random.Generator, mean_K1: Array, captions: int) -> Array:
    spread_K1 = np.exp(0.7 * np.sin(np.arange(COMPONENTS)))[:, None]
    shared_1C = generator.normal(size=(1, captions))
    own_KC = generator.normal(size=(COMPONENTS, captions))
    return mean_K1 + spread_K1 * np.sqrt(0.5) * (shared_1C + own_KC)


def pairs(one_K1: Array, other_K1: Array, *, captions: int, runs: int = RUNS) -> list[ProfilePair]:
    generator = np.random.default_rng(captions)
    ids = names(2 * captions)
    return [
        compare_profiles(
            effects(generator, one_K1, captions),
            effects(generator, other_K1, captions),
            (ids[:captions], ids[captions:]),
        )
        for _ in range(runs)
    ]


def rejected(found: list[ProfilePair]) -> float:
    return sum(pair.p_value <= 0.05 for pair in found) / len(found)


MOST = 0.05 + 3 * np.sqrt(0.05 * 0.95 / RUNS)


ALIKE = {
    "the same": (ONE, ONE),
    "four times weaker": (ONE, ONE / 4),
    "no effect": (ONE, NONE),
    "no effects": (NONE, NONE),
}


@pytest.mark.parametrize(("alike", "captions"), covering(ALIKE, [12, 36]))
def test_profiles_that_differ_in_size_alone_seldom_differ(alike: str, captions: int) -> None:
    one_K1, other_K1 = ALIKE[alike]
    assert rejected(pairs(one_K1, other_K1, captions=captions)) <= MOST


def test_profiles_of_other_components_differ_even_if_weaker() -> None:
    for other_K1, power in ((OTHER, 1.0), (HALF, 1.0), (OTHER / 4, 0.8), (-ONE, 1.0)):
        assert rejected(pairs(ONE, other_K1, captions=36, runs=15)) >= power


def test_similarity_reaches_its_ceiling_for_one_profile_alone() -> None:
    # Of a weak attribute the ceiling is uncertain as well, and low on average.
    for weaker, tolerance in ((1, 0.02), (4, 0.2)):
        same = pairs(ONE, ONE / weaker, captions=36)
        gap = np.mean([pair.similarity - pair.ceiling for pair in same])
        assert gap == pytest.approx(0, abs=tolerance)
    assert np.mean([pair.similarity for pair in same]) < 0.8
    half = pairs(ONE, HALF, captions=36)
    truth = float((ONE * HALF).sum() / (ONE**2).sum())
    ratio = np.mean([pair.similarity for pair in half]) / np.mean([pair.ceiling for pair in half])
    assert ratio == pytest.approx(truth, abs=0.05)


def test_the_ceiling_is_the_mean_over_split_halves() -> None:
    """The product of disjoint halves' means, over all splits, is the size without noise."""
    generator = np.random.default_rng(0)
    x_KC = effects(generator, ONE, 8)
    products = [
        x_KC[:, one] * x_KC[:, other] for one in range(8) for other in range(8) if one != other
    ]
    reliable = np.mean([product.sum() for product in products])
    found = compare_profiles(x_KC, x_KC, (names(8), names(8)))
    assert found.similarity == pytest.approx(1)
    assert found.ceiling == pytest.approx(reliable / (x_KC.mean(1) ** 2).sum())


def test_few_captions_and_constant_effects_tell_nothing() -> None:
    (few,) = pairs(ONE, OTHER, captions=3, runs=1)
    constant_KC = np.repeat(ONE, 8, axis=1)
    constant = compare_profiles(constant_KC, constant_KC, (names(8), names(8)))
    for pair in (few, constant):
        assert np.isnan([pair.similarity, pair.ceiling, pair.p_value]).all()
    noise = share_of_noise(constant_KC, components(), names(8), share=0.2)
    assert np.isnan([*noise.interval, noise.p_value]).all()


def components() -> list[str]:
    return [f"component {number}" for number in range(COMPONENTS)]


def share_p(mean_K1: Array, *, captions: int, runs: int = RUNS) -> list[float]:
    generator = np.random.default_rng(captions)
    found: list[float] = []
    for _ in range(runs):
        x_KC = effects(generator, mean_K1, captions)
        share = concentration(x_KC, components(), draws_of(names(captions))).effective / COMPONENTS
        noise = share_of_noise(x_KC, components(), names(captions), share=share)
        if not np.isnan(share):  # some component has a mean above zero
            is_inside = noise.interval[0] <= share <= noise.interval[1]
            assert is_inside == (noise.p_value > 0.0505)  # of so few draws 2.5 % is rounded
        found.append(noise.p_value)
    return found


@pytest.mark.parametrize("captions", [12, 36])
def test_noise_alone_seldom_looks_more_or_less_spread_than_noise(captions: int) -> None:
    assert np.mean(np.array(share_p(NONE, captions=captions)) <= 0.05) <= MOST


def test_effects_of_all_components_are_more_spread_than_noise() -> None:
    assert max(share_p(NONE + 1.5, captions=36, runs=15)) <= 0.05
