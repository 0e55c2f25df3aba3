"""Audio-text similarity in the world: cosine of sound and caption embeddings (the role of CLAP)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from foleypref.networks.world_towers import AudioTextJudge
from foleypref.scoring.scorers import Judgement, ScoreItem, judge_usable
from foleypref.scoring.scorers._world import WorldScorer, waves


class WorldText(WorldScorer):
    """Cosine of caption and sound in [-1, 1]."""

    trained = "judge_text"
    empty = AudioTextJudge
    needs: ClassVar[frozenset[str]] = frozenset({"audio", "text"})
    higher_is_better: ClassVar[dict[str, bool]] = {"similarity": True}

    @torch.inference_mode()
    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Compare each sound with its caption."""
        return Judgement({"similarity": judge_usable(items, self.needs, self._similarity)}, {})

    def _similarity(self, items: list[ScoreItem]) -> list[float]:
        network = self.network(AudioTextJudge)
        text = network.embed_text([item.prompt for item in items])
        return (text * network.embed_audio(waves(items, network))).sum(1).tolist()
