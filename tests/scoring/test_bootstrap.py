"""Resamples are paired between systems and always the same; intervals are where they should be."""

from __future__ import annotations

import numpy as np
import pytest

from foleypref.scoring.bootstrap import Resamples, draw, interval, resample

REPLICAS = [(weights, noise_seed) for weights in ("w1", "w2", "w3") for noise_seed in (0, 1)]


def test_one_draw_of_many_rows_equals_many_draws_of_one() -> None:
    one, many = np.random.default_rng(0), np.random.default_rng(0)
    np.testing.assert_array_equal(draw(one, 5, 7), [many.integers(0, 7, 7) for _ in range(5)])


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(1).normal(2.0, 1.0, 400)
    low, high = interval(resample(lambda indices: values[indices].mean(), len(values), 4000))
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert (low, high) == (
        pytest.approx(values.mean() - half, abs=0.01),
        pytest.approx(values.mean() + half, abs=0.01),
    )


def test_an_interval_is_moved_onto_the_value_and_keeps_its_width() -> None:
    values = np.random.default_rng(2).normal(size=101)
    bare, moved = interval(values), interval(values, 10.0)
    assert moved[1] - moved[0] == pytest.approx(bare[1] - bare[0])
    assert moved[0] - bare[0] == pytest.approx(10.0 - np.median(values))


def test_values_that_are_not_finite_are_left_out_of_an_interval() -> None:
    assert interval(np.array([np.nan, 1.0, np.inf, 1.0])) == (1.0, 1.0)
    assert np.isnan(interval(np.array([np.nan]))).all()


def test_two_systems_meet_the_same_clips_and_noise_seeds_but_draw_their_training_seeds_apart() -> None:
    resamples = Resamples(9, (0, 1), 50, seed=3)
    other = [(f"other-{weights}", noise_seed) for weights, noise_seed in REPLICAS]
    mine, theirs = list(resamples.of(REPLICAS)), list(resamples.of(other))
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(a.clips, b.clips)
        assert [s for _, s in a.replicas] == [s for _, s in b.replicas]
    assert any(
        [w for w, _ in a.replicas] != [w.removeprefix("other-") for w, _ in b.replicas]
        for a, b in zip(mine, theirs, strict=True)
    )


def test_the_same_system_is_always_drawn_alike() -> None:
    drawn = [[r.replicas for r in Resamples(9, (0, 1), 20, seed=3).of(REPLICAS)] for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert {len(replicas) for replicas in drawn[0]} == {len(REPLICAS)}


def test_a_system_without_a_drawn_noise_seed_is_represented_by_its_first_replica() -> None:
    resamples = Resamples(4, (0, 1), 60, seed=0)
    assert {tuple(r.replicas) for r in resamples.of([("w", 1)])} <= {(("w", 1),), (("w", 1),) * 2}
