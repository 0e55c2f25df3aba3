"""Audio-text similarity in the world: cosine of sound and caption embeddings (the role of CLAP)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from pydantic import PrivateAttr

from foleypref.networks.world_towers import AudioTextJudge
from foleypref.scoring.scorers import Judgement, ScoreItem, judge_usable, loaded
from foleypref.scoring.scorers._world import WorldScorer, load_judge, waves


class WorldText(WorldScorer):
    """Cosine of caption and sound in [-1, 1]."""

    trained: ClassVar[str] = "judge_text"
    needs: ClassVar[frozenset[str]] = frozenset({"audio", "text"})
    dimensions: ClassVar[tuple[str, ...]] = ("similarity",)
    higher_is_better: ClassVar[dict[str, bool]] = {"similarity": True}

    _network: AudioTextJudge | None = PrivateAttr(default=None)

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights and return itself."""
        self._network, _ = load_judge(self.trained, AudioTextJudge(), device)
        return self

    @torch.inference_mode()
    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Compare each sound with its caption."""
        return Judgement({"similarity": judge_usable(items, self.needs, self._similarity)}, {})

    def _similarity(self, items: list[ScoreItem]) -> list[float]:
        network = loaded(self._network)
        text = network.embed_text([item.prompt for item in items])
        return (text * network.embed_audio(waves(items, network))).sum(1).tolist()
