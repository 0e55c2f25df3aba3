"""Agreement against published examples and hand-worked numbers."""

from __future__ import annotations

import numpy as np
import pytest

from foleypref.scoring.agreement import (
    accuracy,
    confusion_matrix,
    expected_calibration_error,
    krippendorff_alpha,
    macro_f1,
    pair_agreement,
    reliability_bins,
)

X = np.nan
# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), example with 4 observers and 12 units.
KRIPPENDORFF_2011 = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, X, X, X],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, X, 3],
        [X, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, X],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, X],
    ]
)


@pytest.mark.parametrize(("level", "expected"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_the_published_example(level, expected):
    assert krippendorff_alpha(KRIPPENDORFF_2011, level) == pytest.approx(expected, abs=5e-4)


def test_alpha_of_the_published_binary_example():
    # Same paper, section B: two observers, ten units, two values; α = 0.095.
    ratings = np.array([[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]], float)
    for level in ("nominal", "ordinal", "interval"):  # with two values they are one
        assert krippendorff_alpha(ratings, level) == pytest.approx(0.095, abs=5e-4)


def test_alpha_at_its_ends():
    assert krippendorff_alpha(np.array([[0, 1, 2, X], [0, 1, 2, 1]])) == pytest.approx(1.0)
    assert np.isnan(krippendorff_alpha(np.array([[1.0, 1, 1], [1, 1, 1]])))  # nothing to disagree on
    assert np.isnan(krippendorff_alpha(np.array([[1.0, 2, X]])))  # only one rater, so no disagreement
    random = np.random.default_rng(0).integers(0, 3, (4, 5000)).astype(float)
    assert abs(krippendorff_alpha(random)) < 0.03
    with pytest.raises(ValueError, match="nominal, ordinal or interval"):
        krippendorff_alpha(KRIPPENDORFF_2011, "ratio")  # type: ignore[arg-type]


def test_accuracy_and_f1_by_hand():
    confusion = confusion_matrix(np.array([0, 0, 1, 1, 1, 2]), np.array([0, 1, 1, 1, 0, 1]))
    assert confusion.tolist() == [[1, 1, 0], [1, 2, 0], [0, 1, 0]]
    assert accuracy(confusion) == pytest.approx(3 / 6)
    # F1 = 2 tp / (labels + predictions): 2/4, 4/7, 0/1
    assert macro_f1(confusion) == pytest.approx((2 / 4 + 4 / 7 + 0) / 3)
    absent = confusion_matrix(np.array([0, 2]), np.array([0, 2]))
    assert macro_f1(absent) == 1.0  # a class that never occurs does not count


def test_ece_by_hand():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.2, 0.6, 0.2], [0.0, 0.4, 0.6]])
    bins = reliability_bins(probabilities, np.array([0, 1, 1, 2]))
    # confidence 0.9, accuracy 0.5 for two; confidence 0.6, accuracy 1 for two
    assert expected_calibration_error(bins) == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)
    assert sum(b.n for b in bins) == 4
    assert len(bins) == 15


def test_ece_of_a_calibrated_generator_is_small_and_of_a_boaster_is_not():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet((1, 1, 1), 20_000)
    labels = (rng.random(20_000)[:, None] > probabilities.cumsum(1)).sum(1)
    assert expected_calibration_error(reliability_bins(probabilities, labels)) < 0.015
    boast = probabilities**3 / (probabilities**3).sum(1, keepdims=True)
    assert expected_calibration_error(reliability_bins(boast, labels)) > 0.1


def test_pair_agreement_stays_within_groups():
    groups = np.array(["a", "b", "a", "b", "a"])
    truth = np.array([2.0, 0, 1, 2, 1])
    values = np.array([0.9, 0.5, 0.1, 0.5, 0.95])
    # a: (2 > 1) found 0.9 > 0.1 right; (2 > 1) found 0.9 < 0.95 wrong; (1 = 1) not counted. b: tie, half.
    agreement = pair_agreement(values, truth, groups)
    assert agreement.n == 3
    assert agreement.value == pytest.approx(1.5 / 3)
    assert pair_agreement(values[:1], truth[:1], groups[:1]).n == 0
