"""Fréchet distance between embeddings of generated and true sound (FD), as av-benchmark computes it.

FD = |μ_p − μ_g|² + tr S_p + tr S_g − 2 tr (S_p S_g)^½, with S the covariance (ddof 1, float64).

The last trace is the sum of the singular values of S_g^½ S_p^½, so no matrix square root is taken: from the
eigenvalues of a symmetric D × D matrix when there are more clips than dimensions, else from the n × n
matrix of inner products. Both agree with scipy's `sqrtm` within 1e-7 relative; the second also where
`sqrtm` is ill at ease.
Letters: p predicted, g ground truth, n clips, D dimensions.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from jaxtyping import Float

from foleytune.metrics import Rows
from foleytune.plugins import Part


class Frechet(Part):
    """FD of `embedding` ("scorer/name") over the clips where both sides have it. Too high for few clips."""

    embedding: str = "world_tagger/features"
    label: str = "Fréchet"
    unit: str = ""
    higher_is_better: ClassVar[bool] = False

    @property
    def reads(self) -> tuple[str, ...]:
        """The one embedding."""
        return (self.embedding,)

    def value(self, rows: Rows) -> float:
        """FD over scored rows; NaN under two of them, as one point has no covariance."""
        mask = rows.scored(self.embedding, truth=True)
        if mask.sum() < 2:
            return float("nan")
        return frechet_distance(rows.embeddings[self.embedding][mask], rows.reference[self.embedding][mask])

    def num_scored(self, rows: Rows) -> int:
        """Rows with a finite embedding on both sides."""
        return int(rows.scored(self.embedding, truth=True).sum())


def frechet_distance(p: Float[np.ndarray, "n_p D"], g: Float[np.ndarray, "n_g D"]) -> float:
    """FD of two sets of features, (n_p, D) and (n_g, D), n ≥ 2 each."""
    if len(p) < 2 or len(g) < 2:
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
    """tr (S_p S_g)^½ of centred rows: the sum of the singular values of g pᵀ."""
    if min(len(p), len(g)) < p.shape[1]:
        return float(np.linalg.svd(g @ p.T, compute_uv=False).sum())
    eigenvalues, vectors = np.linalg.eigh(p.T @ p)
    root = vectors * np.sqrt(np.clip(eigenvalues, 0, None))  # root rootᵀ = S_p
    squared = np.linalg.eigvalsh(root.T @ (g.T @ g) @ root)
    return float(np.sqrt(np.clip(squared, 0, None)).sum())
