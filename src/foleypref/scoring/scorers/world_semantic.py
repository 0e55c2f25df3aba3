"""Audio-video semantic similarity in the world: cosine of two embeddings (the role of ImageBind)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from foleypref.networks.world_towers import AudioVideoJudge
from foleypref.scoring.scorers import Judgement, ScoreItem, judge_usable
from foleypref.scoring.scorers._world import WorldScorer, pictures, waves

SCENE_STRIDE = 12  # frames from one embedded picture to the next


class WorldSemantic(WorldScorer):
    """Cosine of picture and sound in [-1, 1]."""

    trained = "judge_semantic"
    empty = AudioVideoJudge
    needs: ClassVar[frozenset[str]] = frozenset({"audio", "video"})
    higher_is_better: ClassVar[dict[str, bool]] = {"similarity": True}

    @torch.inference_mode()
    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Compare each sound with its picture."""
        return Judgement({"similarity": judge_usable(items, self.needs, self._similarity)}, {})

    def _similarity(self, items: list[ScoreItem]) -> list[float]:
        network = self.network(AudioVideoJudge)
        video = network.embed_video(pictures(items, network)[:, ::SCENE_STRIDE])
        return (video * network.embed_audio(waves(items, network))).sum(1).tolist()
