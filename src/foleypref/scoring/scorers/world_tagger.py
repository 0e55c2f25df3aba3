"""Per-sample inception score in the world, and a tagger's logits and features (the role of PANNs).

The per-sample score is KL(p_i ‖ q) in nats with a frozen marginal q of clean clips stored beside the
weights, so a stored score never depends on which other candidates were scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch

from foleypref.networks.world_towers import Tagger
from foleypref.scoring.scorers import Judgement, ScoreItem, judge_usable
from foleypref.scoring.scorers._world import WorldScorer, waves
from foleypref.world import CLASSES


class WorldTagger(WorldScorer):
    """KL to the frozen marginal, 0 to ln(number of classes)."""

    trained = "judge_tagger"
    empty = partial(Tagger, len(CLASSES))
    needs: ClassVar[frozenset[str]] = frozenset({"audio"})
    higher_is_better: ClassVar[dict[str, bool]] = {"inception": True}
    embeddings: ClassVar[tuple[str, ...]] = ("logits", "features")  # (B, classes), (B, 96)

    @torch.inference_mode()
    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Tag each sound. Silence is unscored but has embeddings."""
        network, q = self.network(Tagger), self._others["marginal"].double()
        log_q = (q / q.sum()).log()
        if not items:
            return Judgement({"inception": []}, {})
        logits, features = (rows.cpu() for rows in network(waves(items, network)))

        def divergences(usable: list[ScoreItem]) -> list[float]:
            # silence leaves the batch, whose size may show in the last bits of a value
            own = logits if len(usable) == len(items) else network(waves(usable, network))[0].cpu()
            log_p = own.double().log_softmax(1)
            return (log_p.exp() * (log_p - log_q)).sum(1).tolist()

        values = {"inception": judge_usable(items, self.needs, divergences)}
        return Judgement(values, {"logits": logits, "features": features})
