"""Audio-text similarity in the world: cosine of sound and caption embeddings (the role of CLAP)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from pydantic import PrivateAttr

from foleypref.networks.world_towers import AudioTextJudge
from foleypref.scoring.scorers import PlainScorer, ScoreItem
from foleypref.scoring.scorers._world import judge_each, judge_version, load_judge, waves
from foleypref.workspace.records import Score


class WorldText(PlainScorer):
    """Cosine in [-1, 1]."""

    needs: ClassVar[frozenset[str]] = frozenset({"audio", "text"})
    dimensions: ClassVar[tuple[str, ...]] = ("similarity",)
    higher_is_better: ClassVar[dict[str, bool]] = {"similarity": True}

    _network: AudioTextJudge | None = PrivateAttr(default=None)

    @property
    def version(self) -> str:
        """Hash of the weights."""
        return judge_version("judge_text")

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights."""
        self._network, _ = load_judge("judge_text", lambda _: AudioTextJudge(), device)
        return self

    @torch.inference_mode()
    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        """One similarity an item."""
        return judge_each(items, "world_text", self.version, "similarity", self.needs, self._values)

    def _values(self, items: list[ScoreItem]) -> list[float]:
        assert self._network is not None, "call load() first"
        text = self._network.embed_text([item.prompt for item in items])
        return (text * self._network.embed_audio(waves(items))).sum(1).tolist()
