"""Fréchet distance between embeddings of generated and true sound (FD), as av-benchmark computes it.

FD = |μ_p − μ_g|² + tr S_p + tr S_g − 2 tr (S_p S_g)^½, with S the covariance (ddof 1, float64).

The last trace is the sum of the singular values of R_gᵀ R_p for any R Rᵀ = S, so no matrix square root is
taken: from the eigenvalues of a symmetric D × D matrix when there are more clips than dimensions, else from
the n × n matrix of inner products. Both agree with scipy's `sqrtm` within 1e-7 relative, the second also
where `sqrtm` is ill at ease, and are faster (`benchmarks/frechet.py`).
Letters: p predicted, g ground truth, n clips, D dimensions.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from pydantic import Field

from foleypref.evaluation.metrics import Rows
from foleypref.evaluation.metrics._sets import SetMetric, Sets, sets


class Frechet(SetMetric):
    """FD of `embedding` ("scorer/name") over the clips where both sides have it. Too high for few clips.

    Unpaired it is over all predictions and all ground truths that have it, matched or not: av-benchmark's way
    with PANNs and VGGish. With `rows_of` a clip has several rows of that length (VGGish: 128), all counted.
    """

    rows_of: int = Field(0, ge=0)
    max_resamples: int = Field(1000, ge=1)  # at 2048 dimensions each takes seconds
    label: str = "Fréchet"

    def num_resamples(self, asked: int) -> int:
        return min(asked, self.max_resamples)

    def distance(self, p: np.ndarray, g: np.ndarray) -> float:
        return frechet_distance(p, g)

    def _sets(self, rows: Rows) -> Sets:
        return sets(rows, self.embedding, paired=self.paired, rows_of=self.rows_of)


def frechet_distance(p: Float[np.ndarray, "n_p D"], g: Float[np.ndarray, "n_g D"]) -> float:
    """Return the FD of two sets of features, (n_p, D) and (n_g, D), n ≥ 2 each."""
    if min(len(p), len(g)) < 2:  # one point has no covariance
        raise ValueError(f"a Fréchet distance needs two rows on each side, found {len(p)} and {len(g)}")
    means = p.mean(axis=0).astype(np.float64), g.mean(axis=0).astype(np.float64)  # in the features' own dtype
    p, g = _centred(p), _centred(g)  # S = xᵀx
    shift = means[0] - means[1]
    spread = np.square(p).sum() + np.square(g).sum()  # tr S_p + tr S_g
    return float(shift @ shift + spread - 2 * _trace_sqrt_product(p, g))


def _centred(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return (x - x.mean(axis=0)) / np.sqrt(len(x) - 1)


def _trace_sqrt_product(p: np.ndarray, g: np.ndarray) -> float:
    """Return tr (S_p S_g)^½ of centred rows: the sum of the singular values of g pᵀ."""
    if min(len(p), len(g)) < p.shape[1]:
        return float(np.linalg.svd(g @ p.T, compute_uv=False).sum())
    root = _root(p.T @ p)
    squared = np.linalg.eigvalsh(root.T @ (g.T @ g) @ root)
    return float(np.sqrt(np.clip(squared, 0, None)).sum())


def _root(covariance: np.ndarray) -> np.ndarray:
    """Return a (D, D) matrix whose product with its transpose is `covariance`."""
    try:
        return np.linalg.cholesky(covariance)  # a sixth of the time of the eigenvectors
    except np.linalg.LinAlgError:  # singular, as with a dimension that is constant
        eigenvalues, vectors = np.linalg.eigh(covariance)
        return np.asarray(vectors * np.sqrt(np.clip(eigenvalues, 0, None)))
