"""Audio-video semantic similarity in the world: cosine of two embeddings (the role of ImageBind)."""

from __future__ import annotations

from typing import ClassVar

from foleypref.networks.world_towers import AudioVideoJudge
from foleypref.scoring.scorers import ScoreItem
from foleypref.scoring.scorers._world import WorldMeasure, pictures, waves

SCENE_STRIDE = 12  # frames from one embedded picture to the next


class WorldSemantic(WorldMeasure):
    """Cosine of picture and sound in [-1, 1]."""

    trained = "judge_semantic"
    empty = AudioVideoJudge
    needs: ClassVar[frozenset[str]] = frozenset({"audio", "video"})
    higher_is_better: ClassVar[dict[str, bool]] = {"similarity": True}

    def numbers(self, items: list[ScoreItem]) -> list[float]:
        """Compare each sound with its picture."""
        network = self.network(AudioVideoJudge)
        video = network.embed_video(pictures(items, network)[:, ::SCENE_STRIDE])
        return (video * network.embed_audio(waves(items, network))).sum(1).tolist()
