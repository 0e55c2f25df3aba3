"""Inception Score of class posteriors: each clip clearly of one class, all together of many (up is better).

As av-benchmark: clips in the order of their names, permuted by RandomState(2020), `splits` contiguous chunks,
mean over chunks of exp(mean_x KL(p(y|x) ‖ mean p)). The score depends on the number of clips in a chunk: 100
random posteriors give 6.6 with 10 splits and 18.4 with 1. Compare systems only on the same clips, and never
with a table made on another number of clips.
Letters: n clips, K classes.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from jaxtyping import Float, Float64
from pydantic import Field

from foleypref.evaluation.metrics import Rows
from foleypref.evaluation.metrics._sets import EmbeddingMetric, present
from foleypref.evaluation.metrics.kl import log_softmax

PERMUTATION_SEED = 2020


class Inception(EmbeddingMetric):
    """IS of the logits in `embedding` ("scorer/name"), over all predictions: the truth is not looked at.

    av-benchmark's ISC-PANNS is the same; its ISC-PASST is `paired`, over predictions whose ground truth has
    logits too. The order of rows matters; the benchmark sorts by file name.
    """

    embedding: str = "world_tagger/logits"
    splits: int = Field(10, ge=1)
    paired: bool = False
    label: str = "IS"
    unit: str = ""
    higher_is_better: ClassVar[bool] = True

    def value(self, rows: Rows) -> float:
        """Return the IS over scored rows; NaN if a chunk would be empty."""
        return inception_score(rows.vectors(self.embedding)[self._mask(rows)], self.splits)

    def num_scored(self, rows: Rows) -> int:
        return int(self._mask(rows).sum())

    def _mask(self, rows: Rows) -> np.ndarray:
        mask = present(rows.vectors(self.embedding))
        return mask & present(rows.vectors(self.embedding, truth=True)) if self.paired else mask


def inception_score(logits: Float[np.ndarray, "n K"], splits: int = 10) -> float:
    """Return the mean over chunks of the Inception Score of logits (n, K); NaN if n < splits."""
    return float(chunk_scores(logits, splits).mean())


def chunk_scores(
    logits: Float[np.ndarray, "n K"], splits: int = 10, *, permute: bool = True
) -> Float64[np.ndarray, " splits"]:
    """Return the Inception Score of each chunk of logits (n, K): (splits,), NaN if n < splits.

    Their mean and population deviation are av-benchmark's ISC mean and std.
    """
    n = len(logits)
    if n < splits:
        return np.full(splits, np.nan)
    log_p = log_softmax(logits)[permutation(n)] if permute else log_softmax(logits)
    p, scores = np.exp(log_p), np.empty(splits)
    for i in range(splits):
        chunk = slice(i * n // splits, (i + 1) * n // splits)
        log_q = np.log(p[chunk].mean(axis=0))
        scores[i] = np.exp((p[chunk] * (log_p[chunk] - log_q)).sum(axis=1).mean())
    return scores


def permutation(n: int) -> np.ndarray:
    """Return the order (n,) in which clips go into chunks, from the benchmark's generator."""
    return np.random.RandomState(PERMUTATION_SEED).permutation(n)
