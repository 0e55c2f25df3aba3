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
from foleypref.scoring.scorers import PlainScorer, ScoreItem
from foleypref.scoring.scorers._world import judge_each, judge_version, load_judge, waves
from foleypref.workspace.records import Score
from foleypref.world import CLASSES


class WorldTagger(PlainScorer):
    """KL to the frozen marginal, 0 to ln(number of classes)."""

    needs: ClassVar[frozenset[str]] = frozenset({"audio"})
    dimensions: ClassVar[tuple[str, ...]] = ("inception",)
    higher_is_better: ClassVar[dict[str, bool]] = {"inception": True}
    embeddings: ClassVar[tuple[str, ...]] = ("logits", "features")

    _network: Tagger | None = PrivateAttr(default=None)
    _log_q: Tensor | None = PrivateAttr(default=None)

    @property
    def version(self) -> str:
        """Hash of the weights."""
        return judge_version("judge_tagger")

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights and the marginal."""
        self._network, extra = load_judge("judge_tagger", lambda _: Tagger(len(CLASSES)), device)
        q = extra["marginal"].double()
        self._log_q = (q / q.sum()).log()
        return self

    @torch.inference_mode()
    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        """One divergence an item."""
        return judge_each(items, "world_tagger", self.version, "inception", self.needs, self._values)

    @torch.inference_mode()
    def embed(self, items: Sequence[ScoreItem]) -> dict[str, Tensor]:
        """logits (B, classes) and features (B, 96)."""
        assert self._network is not None, "call load() first"
        logits, features = self._network(waves(items))
        return {"logits": logits, "features": features}

    def _values(self, items: list[ScoreItem]) -> list[float]:
        assert self._network is not None, "call load() first"
        assert self._log_q is not None
        log_p = self._network(waves(items))[0].double().log_softmax(1)
        return (log_p.exp() * (log_p - self._log_q)).sum(1).tolist()
