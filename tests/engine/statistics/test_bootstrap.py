"""Bootstrap intervals against a plain computation that draws clusters one by one."""

import numpy as np
import pytest

from engine.statistics.bootstrap import harmonic_interval, harmonic_mean, ratio_interval


def drawn(sums: list[tuple[float, float]], rng: np.random.Generator) -> float:
    picked = [sums[int(n)] for n in rng.integers(len(sums), size=len(sums))]
    return sum(top for top, _ in picked) / sum(bottom for _, bottom in picked)


def test_ratio_interval_is_that_of_drawing_clusters_one_by_one() -> None:
    rng = np.random.default_rng(0)
    sums = [(float(rng.binomial(n, 0.7)), float(n)) for n in rng.integers(2, 12, size=25)]
    found = ratio_interval(np.array(sums), np.random.default_rng(1))
    plain = np.percentile([drawn(sums, rng) for _ in range(4000)], (2.5, 97.5))
    assert found is not None
    assert np.allclose(found, plain, atol=0.01)


def test_harmonic_interval_draws_both_sides() -> None:
    rng = np.random.default_rng(0)
    still_recognised = [(float(rng.binomial(8, 0.1)), 8.0) for _ in range(10)]
    kept = [(float(rng.binomial(4, 0.9)), 4.0) for _ in range(40)]
    found = harmonic_interval(np.array(still_recognised), np.array(kept), np.random.default_rng(1))
    means = []
    for _ in range(4000):
        e, k = drawn(still_recognised, rng), drawn(kept, rng)
        means.append(2 * (1 - e) * k / (1 - e + k))
    assert found is not None
    assert np.allclose(found, np.percentile(means, (2.5, 97.5)), atol=0.01)


def test_a_single_cluster_has_no_interval_and_nothing_no_mean() -> None:
    assert ratio_interval(np.array([[1.0, 2.0]]), np.random.default_rng(0)) is None
    assert ratio_interval(np.zeros((3, 2)), np.random.default_rng(0)) is None
    said_once = np.array([[1.0, 2.0], [0.0, 0.0]])
    assert ratio_interval(said_once, np.random.default_rng(0)) is None
    one, two = np.array([[1.0, 2.0]]), np.array([[1.0, 2.0], [2.0, 2.0]])
    assert harmonic_interval(one, two, np.random.default_rng(0)) is None
    assert harmonic_mean(1.0, 0.0) == 0.0
    assert harmonic_mean(0.06, 0.84) == pytest.approx(2 * 0.94 * 0.84 / 1.78)
