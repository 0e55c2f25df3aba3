"""Kernel distances pair by pair, in closed form, and in their choices: bandwidth, subsets."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from foleypref.evaluation.metrics import Rows, kad
from foleypref.evaluation.metrics.kad import KAD, gaussian_mmd2, median_distance
from foleypref.evaluation.metrics.kid import KID, polynomial_mmd2, subset_discrepancies

KEY = "judge/vector"


def rows_of(predicted: np.ndarray, truth: np.ndarray) -> Rows:
    return Rows(tuple(f"{i:04d}" for i in range(len(predicted))), {}, {KEY: predicted}, {KEY: truth})


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# ---- kernel audio distance


def brute_mmd2(p: np.ndarray, g: np.ndarray, sigma: float) -> float:
    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.exp(-np.square(x.astype(float) - y).sum() / (2 * sigma**2)))

    within = [np.mean([k(x[i], x[j]) for i, j in itertools.permutations(range(len(x)), 2)]) for x in (p, g)]
    return float(sum(within) - 2 * np.mean([k(x, y) for x in p for y in g]))


@pytest.mark.parametrize("block", [3, 1024])
def test_kad_is_the_unbiased_discrepancy_pair_by_pair(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kad, "BLOCK", block)  # sets larger than a block
    p, g = normal(11, 5), normal(8, 5, seed=1) * 1.3 + 0.4
    distances = sorted(float(np.linalg.norm(x.astype(float) - y)) for x, y in itertools.combinations(g, 2))
    sigma = distances[13]  # of 28, the lower middle one
    assert median_distance(g) == pytest.approx(sigma, rel=1e-6)
    rows = rows_of(p, np.concatenate([np.full((3, 5), np.nan, np.float32), g]))
    value = KAD(embedding=KEY, paired=False).value(rows)
    assert value == pytest.approx(100 * brute_mmd2(p, g, sigma), rel=1e-6)


def test_kad_of_gaussians_is_the_closed_form() -> None:
    generator, shift, sigma = np.random.default_rng(0), np.array([0.8, -0.6]), 1.5
    p, g = generator.normal(size=(4000, 2)), generator.normal(size=(4000, 2)) + shift
    # E k(x, y) for x - y ~ N(m, 2I): (σ²/(σ² + 2))^(D/2) exp(−|m|²/2(σ² + 2)), D = 2, |m| = 1
    expected = 2 * sigma**2 / (sigma**2 + 2) * (1 - np.exp(-1 / (2 * (sigma**2 + 2))))
    assert gaussian_mmd2(p, g, sigma) == pytest.approx(expected, rel=0.05)


def test_kad_of_equal_distributions_is_zero_on_average_and_often_below() -> None:
    draws = [normal(2, 20, 4, seed=seed) for seed in range(300)]
    values = np.array([gaussian_mmd2(p, g, 2.0) for p, g in draws])
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(300)
    assert 0.3 < (values < 0).mean() < 0.9


def test_kad_measures_in_the_spread_of_the_truth() -> None:
    p, g = normal(20, 4), normal(20, 4, seed=1)
    metric, other = KAD(embedding=KEY), KAD(embedding=KEY, bandwidth_of="predicted")
    assert metric.value(rows_of(10 * p, 10 * g)) == pytest.approx(metric.value(rows_of(p, g)), rel=1e-5)
    assert metric.value(rows_of(3 * p, g)) == pytest.approx(100 * gaussian_mmd2(3 * p, g, median_distance(g)))
    assert other.value(rows_of(3 * p, g)) == pytest.approx(
        100 * gaussian_mmd2(3 * p, g, median_distance(3 * p))
    )
    assert metric.value(rows_of(3 * p, g)) != pytest.approx(other.value(rows_of(3 * p, g)), rel=0.01)


def test_kad_of_a_set_with_itself_and_of_a_single_point() -> None:
    p = normal(20, 4)
    k = np.exp(-np.square(p[:, None].astype(float) - p).sum(2) / (2 * median_distance(p) ** 2))
    off = (k.sum() - 20) / (20 * 19)
    assert KAD(embedding=KEY).value(rows_of(p, p)) == pytest.approx(200 * (off - k.mean()), rel=1e-6)
    point = np.ones((5, 4), np.float32)
    assert KAD(embedding=KEY).value(rows_of(point, point)) == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(ValueError, match="two rows"):
        gaussian_mmd2(p[:1], p, 1.0)
    with pytest.raises(ValueError, match="two rows"):
        median_distance(p[:1])


# ---- kernel inception distance


def test_kid_is_the_unbiased_cubic_discrepancy_pair_by_pair() -> None:
    p, g = normal(6, 3), normal(6, 3, seed=1) + 0.5
    within = [
        np.mean([(x[i] @ x[j] / 3 + 1) ** 3 for i, j in itertools.permutations(range(6), 2)]) for x in (p, g)
    ]
    between = np.mean([(x @ y / 3 + 1) ** 3 for x in p for y in g])
    assert polynomial_mmd2(p, g) == pytest.approx(float(sum(within) - 2 * between), rel=1e-5)
    assert KID(embedding=KEY).value(rows_of(p, g)) == pytest.approx(polynomial_mmd2(p, g))


def test_kid_draws_both_sides_in_turn_as_many_as_the_smaller_has() -> None:
    p, g = normal(9, 3), normal(7, 3, seed=1)
    generator = np.random.RandomState(2020)
    expected = []
    for _ in range(4):
        first, second = generator.choice(9, 7, replace=False), generator.choice(7, 7, replace=False)
        expected.append(polynomial_mmd2(p[first], g[second]))
    assert subset_discrepancies(p, g, 4, 1000) == pytest.approx(expected, rel=1e-9)
    assert len(set(np.round(expected, 9))) > 1
    with pytest.raises(ValueError, match="two rows"):
        subset_discrepancies(p[:1], g)
