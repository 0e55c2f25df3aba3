"""KL divergence between class posteriors of true and generated sound of the same clip (lower is better).

KL(ground truth ‖ predicted) of softmaxed logits in nats, mean over clips: av-benchmark's `kl_softmax`. Its
`kl_sigmoid` is left out: a sum over log-sigmoids without the (1 − p) term is no divergence of Bernoullis, and
no table has it.
Letters: g ground truth, p predicted, n clips, K classes.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from jaxtyping import Float, Float64

from foleypref.evaluation.metrics import Rows
from foleypref.evaluation.metrics._sets import EmbeddingMetric, sets


class KL(EmbeddingMetric):
    """Mean KL of the logits in `embedding` ("scorer/name") over the clips where both sides have them."""

    embedding: str = "world_tagger/logits"
    label: str = "KL"
    unit: str = ""
    higher_is_better: ClassVar[bool] = False

    def value(self, rows: Rows) -> float:
        p, g, _ = sets(rows, self.embedding)
        return float(kl_divergence(g, p).mean()) if len(p) else float("nan")

    def num_scored(self, rows: Rows) -> int:
        return sets(rows, self.embedding).num_predictions


def kl_divergence(g: Float[np.ndarray, "n K"], p: Float[np.ndarray, "n K"]) -> Float64[np.ndarray, " n"]:
    """Return KL(softmax g ‖ softmax p) of logits (n, K), in nats: (n,)."""
    log_g, log_p = log_softmax(g), log_softmax(p)
    return (np.exp(log_g) * (log_g - log_p)).sum(axis=1)


def log_softmax(logits: Float[np.ndarray, "n K"]) -> Float64[np.ndarray, "n K"]:
    """Turn logits (n, K) into log-probabilities, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
