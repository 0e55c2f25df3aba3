"""Kernel Audio Distance between embeddings of generated and true sound (arXiv 2502.15602; lower is better).

KAD = 100 · MMD², the unbiased estimate with a Gaussian kernel exp(−|x − y|² / 2σ²):
MMD² = mean_{i≠j} k(p_i, p_j) + mean_{i≠j} k(g_i, g_j) − 2 mean_{i,j} k(p_i, g_j). σ is the median distance
between two of the ground truth, so that it stays when the predictions change. Near 0 it may be negative.
Unlike the Fréchet distance it assumes no Gaussian and is not too high for few clips.

The paper and the README of its toolkit (kadtk 8bda71d) take σ from the reference; the toolkit's code takes it
from the evaluated set. `bandwidth_of="predicted"` reproduces the code.
Letters: p predicted, g ground truth, n clips, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field

from foleypref.evaluation.metrics._sets import SetMetric

BLOCK = 1024  # rows of the kernel matrix at a time: 15 000 clips would fill 1.8 GB
EPSILON = 1e-8  # beside 2σ², kadtk's guard against a set that is a single point


class KAD(SetMetric):
    """KAD of `embedding` ("scorer/name"), over the clips where both sides have it or, unpaired, over all.

    A resample holds clips twice, which look like pairs without distance; its values come out too high, and
    the interval is moved back by as much.
    """

    scale: float = Field(100.0, gt=0)
    bandwidth_of: Literal["truth", "predicted"] = "truth"
    label: str = "KAD"

    def distance(self, p: np.ndarray, g: np.ndarray) -> float:
        bandwidth = median_distance(g if self.bandwidth_of == "truth" else p)
        return self.scale * gaussian_mmd2(p, g, bandwidth)


def gaussian_mmd2(p: Float[np.ndarray, "n_p D"], g: Float[np.ndarray, "n_g D"], bandwidth: float) -> float:
    """Return the unbiased squared maximum mean discrepancy of two sets, n ≥ 2 each; `bandwidth` is σ."""
    if len(p) < 2 or len(g) < 2:
        raise ValueError(f"an unbiased discrepancy needs two rows on each side, found {len(p)} and {len(g)}")
    p, g = p.astype(np.float64), g.astype(np.float64)
    gamma = 1 / (2 * bandwidth**2 + EPSILON)

    def total(x: np.ndarray, y: np.ndarray) -> float:
        return sum(float(np.exp(-gamma * block).sum()) for block in _squared_distances(x, y))

    def within(x: np.ndarray) -> float:
        n = len(x)
        return (total(x, x) - n) / (n * (n - 1))  # without the diagonal, n times k(x, x) = 1

    return within(p) + within(g) - 2 * total(p, g) / (len(p) * len(g))


def median_distance(x: Float[np.ndarray, "n D"]) -> float:
    """Return the median distance between two of n ≥ 2 rows; of two middle values the lower, like torch."""
    n = len(x)
    if n < 2:
        raise ValueError(f"a distance needs two rows, found {n}")
    x = x.astype(np.float64)
    squared, done = np.empty(n * (n - 1) // 2), 0
    for start, block in zip(range(0, n, BLOCK), _squared_distances(x, x)):
        above = block[np.arange(n) > start + np.arange(len(block))[:, None]]
        squared[done : done + len(above)] = above
        done += len(above)
    assert done == len(squared)
    middle = (done - 1) // 2
    squared.partition(middle)
    return float(np.sqrt(squared[middle]))


def _squared_distances(x: np.ndarray, y: np.ndarray) -> Iterator[np.ndarray]:
    """Yield |x_i − y_j|² in blocks of rows, (b, n_y) each."""
    norms = np.square(y).sum(axis=1)
    for start in range(0, len(x), BLOCK):
        part = x[start : start + BLOCK]
        squared = np.square(part).sum(axis=1)[:, None] + norms - 2 * (part @ y.T)
        yield np.maximum(squared, 0, out=squared)  # rounding may leave −1e-15 for equal rows
