"""The clips that enter a metric over sets, and their feature rows on both sides.

Paired, a clip counts if both sides have an embedding; unpaired, each side is everything it has, so the two
sets may differ in size. An embedding is one row per clip (n, D), or several rows of `rows_of` numbers, as
(n, P, D) or laid end to end (n, P·D), where a row with a NaN is padding.
Letters: p predicted, g ground truth, n clips, P rows of a clip, D dimensions.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from foleypref.evaluation.metrics import Metric, Rows


class Sets(NamedTuple):
    """Feature rows of both sides, (n_p, D) and (n_g, D), and how many predictions stand behind `p`."""

    p: np.ndarray
    g: np.ndarray
    num_predictions: int


def sets(rows: Rows, key: str, *, paired: bool = True, rows_of: int = 0) -> Sets:
    """Return the feature rows of embedding `key`; without any ground truth no prediction counts.

    Raises ValueError for an unknown key, or an embedding that is not of rows of that length.
    """
    p, g = split_rows(rows.vectors(key), rows_of), split_rows(rows.vectors(key, truth=True), rows_of)
    finite_p, finite_g = np.isfinite(p).all(axis=2), np.isfinite(g).all(axis=2)  # (n, P)
    has_p, has_g = finite_p.any(axis=1), finite_g.any(axis=1)
    if paired:
        has_p = has_g = has_p & has_g
    return Sets(
        p[finite_p & has_p[:, None]], g[finite_g & has_g[:, None]], int(has_p.sum()) if has_g.any() else 0
    )


def present(x: Float[np.ndarray, "n D"]) -> Bool[np.ndarray, " n"]:
    """Return (n,) bool: which clips have an embedding of one row, all of it finite."""
    return np.isfinite(split_rows(x, 0)).all(axis=(1, 2))


def split_rows(x: np.ndarray, rows_of: int) -> Float[np.ndarray, "n P D"]:
    """Reshape (n, D) to (n, 1, D); with `rows_of`, (n, P, D) or (n, P·D) to (n, P, D). Raises ValueError."""
    if rows_of == 0 and x.ndim == 2:
        return x[:, None]
    width = int(np.prod(x.shape[1:]))
    if rows_of == 0 or width % rows_of or (x.ndim > 2 and x.shape[-1] != rows_of):
        expected = f"rows of {rows_of}" if rows_of else "one row per clip"
        raise ValueError(
            f"embeddings of shape {x.shape} are not {expected}; "
            "set `rows_of` to the length of a row (0: one row per clip)"
        )
    return x.reshape(len(x), width // rows_of, rows_of)


class EmbeddingMetric(Metric):
    """A metric that reads one embedding."""

    embedding: str  # "scorer/name"

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.embedding,)


class SetMetric(EmbeddingMetric):
    """A distance between the sets of predicted and true embeddings."""

    embedding: str = "world_tagger/features"
    paired: bool = True
    unit: str = ""
    higher_is_better: ClassVar[bool] = False

    def value(self, rows: Rows) -> float:
        """Return the distance; NaN with under two rows on a side."""
        p, g, _ = self._sets(rows)
        return self.distance(p, g) if min(len(p), len(g)) > 1 else float("nan")

    @abstractmethod
    def distance(self, p: np.ndarray, g: np.ndarray) -> float:
        """Return the distance of two sets of features, (n_p, D) and (n_g, D), n ≥ 2 each."""

    def num_scored(self, rows: Rows) -> int:
        return self._sets(rows).num_predictions

    def _sets(self, rows: Rows) -> Sets:
        return sets(rows, self.embedding, paired=self.paired)
