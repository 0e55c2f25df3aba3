"""Audio-text similarity in the world: cosine of sound and caption embeddings (the role of CLAP)."""

from __future__ import annotations

from typing import ClassVar

from foleypref.networks.world_towers import AudioTextJudge
from foleypref.scoring.scorers import ScoreItem
from foleypref.scoring.scorers._world import WorldMeasure, waves


class WorldText(WorldMeasure):
    """Cosine of caption and sound in [-1, 1]."""

    trained = "judge_text"
    empty = AudioTextJudge
    needs: ClassVar[frozenset[str]] = frozenset({"audio", "text"})
    higher_is_better: ClassVar[dict[str, bool]] = {"similarity": True}

    def numbers(self, items: list[ScoreItem]) -> list[float]:
        """Compare each sound with its caption."""
        network = self.network(AudioTextJudge)
        text = network.embed_text([item.prompt for item in items])
        return (text * network.embed_audio(waves(items, network))).sum(1).tolist()
