"""Agreement of labels: between raters (Krippendorff's α), and of a model's classes and odds with labels.

Letters: R raters, U units (rated things), N labelled things, K classes.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

Level = Literal["nominal", "ordinal", "interval"]
NUM_BINS = 15


def krippendorff_alpha(ratings: np.ndarray, level: Level = "ordinal") -> float:
    """Return Krippendorff's α of `ratings` (R, U), NaN where a rater did not rate: 1 agreement, 0 chance.

    α = 1 − D_o / D_e over the coincidence matrix (Krippendorff, "Computing Krippendorff's Alpha-Reliability",
    2011). NaN if it is not defined: no unit with two ratings, or all ratings equal. Raises ValueError
    for a level other than nominal, ordinal or interval.
    """
    ratings = np.asarray(ratings, np.float64)
    values = np.unique(ratings[~np.isnan(ratings)])
    counts = np.stack([(ratings == value).sum(0) for value in values], 1) if len(values) else None
    if counts is None:
        return float("nan")
    counts = counts[counts.sum(1) >= 2].astype(np.float64)  # (U, V); a unit rated once pairs with nothing
    m = counts.sum(1, keepdims=True)
    coincidence = (counts / (m - 1)).T @ counts - np.diag((counts / (m - 1)).sum(0))  # o_ck, (V, V)
    n_c = coincidence.sum(1)
    n = n_c.sum()
    distance = _squared_distance(values, n_c, level)
    expected = float((np.outer(n_c, n_c) * distance).sum())
    if n == 0 or expected == 0:
        return float("nan")
    # D_e = Σ n_c n_k δ² / (n (n − 1)): a value is not paired with itself, so the diagonal's δ² = 0 does it.
    return 1.0 - float((coincidence * distance).sum()) * (n - 1) / expected


def _squared_distance(values: np.ndarray, n_c: np.ndarray, level: Level) -> np.ndarray:
    """Return δ² between values, (V, V)."""
    if level == "nominal":
        return 1.0 - np.eye(len(values))
    if level == "interval":
        return (values[:, None] - values[None, :]) ** 2
    if level == "ordinal":  # ranks between c and k, with half of both ends
        middle = np.cumsum(n_c) - n_c / 2
        return (middle[:, None] - middle[None, :]) ** 2
    raise ValueError(f"level is nominal, ordinal or interval, found {level!r}")


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int = 3) -> np.ndarray:
    """Return counts (K, K), rows labels, columns predictions; both arguments are (N,) of ints."""
    matrix = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix


def accuracy(confusion: np.ndarray) -> float:
    """Return the share of the diagonal; NaN without data."""
    return float(np.trace(confusion) / confusion.sum()) if confusion.sum() else float("nan")


def macro_f1(confusion: np.ndarray) -> float:
    """Return the mean F1 over the classes that occur as label or prediction; NaN without data."""
    both = confusion.sum(0) + confusion.sum(1)
    seen = both > 0
    return float(np.mean(2 * np.diag(confusion)[seen] / both[seen])) if seen.any() else float("nan")


class Bin(NamedTuple):
    """One bar of a reliability plot, confidences in (low, high]; an empty bar's means are NaN."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def reliability_bins(probabilities: np.ndarray, labels: np.ndarray, num_bins: int = NUM_BINS) -> list[Bin]:
    """Compare top-class confidence (N, K) with accuracy (N,) in `num_bins` bins of equal width."""
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == labels
    bin_of = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    bins = []
    for index in range(num_bins):
        inside = bin_of == index
        n = int(inside.sum())
        means = (float(confidence[inside].mean()), float(correct[inside].mean())) if n else (np.nan, np.nan)
        bins.append(Bin(index / num_bins, (index + 1) / num_bins, n, *means))
    return bins


def expected_calibration_error(bins: list[Bin]) -> float:
    """Return ECE = Σ_b n_b/N |accuracy_b − confidence_b| (arXiv 1706.04599, Eq. 3); NaN without data."""
    total = sum(b.n for b in bins)
    gaps = sum(b.n * abs(b.accuracy - b.confidence) for b in bins if b.n)
    return gaps / total if total else float("nan")


class PairAgreement(NamedTuple):
    """Share of `n` within-group pairs that two scores order alike; a tie of `values` counts half."""

    value: float
    n: int


def pair_agreement(values: np.ndarray, truth: np.ndarray, groups: np.ndarray) -> PairAgreement:
    """Count pairs within groups that `values` (N,) order like `truth` (N,); ties in `truth` do not count."""
    order = np.argsort(groups, kind="stable")
    cuts = np.flatnonzero(groups[order][1:] != groups[order][:-1]) + 1
    right, n = 0.0, 0
    for members in np.split(order, cuts):
        first, second = np.triu_indices(len(members), 1)
        true_sign = np.sign(truth[members][first] - truth[members][second])
        sign = np.sign(values[members][first] - values[members][second])[true_sign != 0]
        true_sign = true_sign[true_sign != 0]
        right += float((sign == true_sign).sum() + 0.5 * (sign == 0).sum())
        n += len(true_sign)
    return PairAgreement(right / n if n else float("nan"), n)
