"""Audio-video semantic similarity in the world: cosine of two embeddings (the role of ImageBind)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from pydantic import PrivateAttr

from foleypref.networks.world_towers import AudioVideoJudge
from foleypref.scoring.scorers import Judgement, ScoreItem, judge_usable, loaded
from foleypref.scoring.scorers._world import WorldScorer, load_judge, pictures, waves

SCENE_STRIDE = 12  # frames from one embedded picture to the next


class WorldSemantic(WorldScorer):
    """Cosine of picture and sound in [-1, 1]."""

    trained: ClassVar[str] = "judge_semantic"
    needs: ClassVar[frozenset[str]] = frozenset({"audio", "video"})
    dimensions: ClassVar[tuple[str, ...]] = ("similarity",)
    higher_is_better: ClassVar[dict[str, bool]] = {"similarity": True}

    _network: AudioVideoJudge | None = PrivateAttr(default=None)

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights and return itself."""
        self._network, _ = load_judge(self.trained, AudioVideoJudge(), device)
        return self

    @torch.inference_mode()
    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Compare each sound with its picture."""
        return Judgement({"similarity": judge_usable(items, self.needs, self._similarity)}, {})

    def _similarity(self, items: list[ScoreItem]) -> list[float]:
        network = loaded(self._network)
        video = network.embed_video(pictures(items, network)[:, ::SCENE_STRIDE])
        return (video * network.embed_audio(waves(items, network))).sum(1).tolist()
