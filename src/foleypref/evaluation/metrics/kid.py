"""Kernel Inception Distance between embeddings of generated and true sound (lower is better).

As av-benchmark's `compute_kid` (arXiv 1801.01401): the unbiased MMD² with the kernel (x·y / D + 1)³ of
`subsets` random subsets of both sides, averaged. Subsets are drawn without replacement by RandomState(2020),
of the predictions first and then of the ground truth, and are as large as the smaller side where that has
fewer than `subset_size` clips. av-benchmark calls it nowhere and has no defaults; ours are torch-fidelity's.
It adds in float32, we in float64: where KID is small, float32 leaves few of its digits.
Letters: p predicted, g ground truth, n clips, D dimensions.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64
from pydantic import Field

from foleypref.evaluation.metrics._sets import SetMetric

SUBSET_SEED = 2020


class KID(SetMetric):
    """KID of `embedding` ("scorer/name"), over the clips where both sides have it or, unpaired, over all."""

    subsets: int = Field(100, ge=1)
    subset_size: int = Field(1000, ge=2)
    label: str = "KID"

    def distance(self, p: np.ndarray, g: np.ndarray) -> float:
        return float(subset_discrepancies(p, g, self.subsets, self.subset_size).mean())


def subset_discrepancies(
    p: Float[np.ndarray, "n_p D"], g: Float[np.ndarray, "n_g D"], subsets: int = 100, subset_size: int = 1000
) -> Float64[np.ndarray, " subsets"]:
    """Return the MMD² of each pair of subsets, (subsets,); mean and deviation are KID's mean and std."""
    size = min(subset_size, len(p), len(g))
    if size < 2:
        raise ValueError(f"a kernel distance needs two rows on each side, found {len(p)} and {len(g)}")
    if size == len(p) == len(g):  # every subset is everything
        return np.full(subsets, polynomial_mmd2(p, g))
    generator = np.random.RandomState(SUBSET_SEED)  # the benchmark's own generator
    values = np.empty(subsets)
    for i in range(subsets):
        chosen_p = generator.choice(len(p), size, replace=False)
        chosen_g = generator.choice(len(g), size, replace=False)
        values[i] = polynomial_mmd2(p[chosen_p], g[chosen_g])
    return values


def polynomial_mmd2(p: Float[np.ndarray, "n D"], g: Float[np.ndarray, "n D"]) -> float:
    """Return the unbiased squared maximum mean discrepancy of two sets of n ≥ 2 rows, cubic kernel."""
    n = len(p)
    p, g = p.astype(np.float64), g.astype(np.float64)
    within = sum(kernel.sum() - np.trace(kernel) for kernel in (_cubic(p, p), _cubic(g, g)))
    return float(within / (n * (n - 1)) - 2 * _cubic(p, g).mean())


def _cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)
