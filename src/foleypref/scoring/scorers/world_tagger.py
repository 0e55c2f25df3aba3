"""Per-sample inception score in the world, and a tagger's logits and features (the role of PANNs).

The per-sample score is KL(p_i ‖ q) in nats with a frozen marginal q of clean clips stored beside the
weights, so a stored score never depends on which other candidates were scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from pydantic import PrivateAttr
from torch import Tensor

from foleypref.networks.world_towers import Tagger
from foleypref.scoring.scorers import Judgement, ScoreItem, judge_usable, loaded
from foleypref.scoring.scorers._world import WorldScorer, load_judge, waves
from foleypref.world import CLASSES


class WorldTagger(WorldScorer):
    """KL to the frozen marginal, 0 to ln(number of classes)."""

    trained: ClassVar[str] = "judge_tagger"
    needs: ClassVar[frozenset[str]] = frozenset({"audio"})
    dimensions: ClassVar[tuple[str, ...]] = ("inception",)
    higher_is_better: ClassVar[dict[str, bool]] = {"inception": True}
    embeddings: ClassVar[tuple[str, ...]] = ("logits", "features")  # (B, classes), (B, 96)

    _network: Tagger | None = PrivateAttr(default=None)
    _log_q: Tensor | None = PrivateAttr(default=None)

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights and the marginal."""
        self._network, extra = load_judge(self.trained, Tagger(len(CLASSES)), device)
        q = extra["marginal"].double()
        self._log_q = (q / q.sum()).log()
        return self

    @torch.inference_mode()
    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Tag each sound. Silence is unscored but has embeddings."""
        network, log_q = loaded(self._network), loaded(self._log_q)
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
