"""Audio-video semantic similarity in the world: cosine of two embeddings (the role of ImageBind)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from pydantic import PrivateAttr

from foleypref.media.streams import FrameStream
from foleypref.networks.world_towers import AudioVideoJudge
from foleypref.scoring.scorers import PlainScorer, ScoreItem
from foleypref.scoring.scorers._world import PICTURE, judge_each, judge_version, load_judge, pictures, waves
from foleypref.workspace.records import Score

SCENE_STRIDE = 12  # frames between the pictures it looks at


class WorldSemantic(PlainScorer):
    """Cosine in [-1, 1]."""

    needs: ClassVar[frozenset[str]] = frozenset({"audio", "video"})
    dimensions: ClassVar[tuple[str, ...]] = ("similarity",)
    higher_is_better: ClassVar[dict[str, bool]] = {"similarity": True}

    _network: AudioVideoJudge | None = PrivateAttr(default=None)

    @property
    def streams(self) -> tuple[FrameStream, ...]:
        """25 frames a second, 48 pixels a side."""
        return (PICTURE,)

    @property
    def version(self) -> str:
        """Hash of the weights."""
        return judge_version("judge_semantic")

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights."""
        self._network, _ = load_judge("judge_semantic", lambda _: AudioVideoJudge(), device)
        return self

    @torch.inference_mode()
    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        """One similarity an item."""
        return judge_each(items, "world_semantic", self.version, "similarity", self.needs, self._values)

    def _values(self, items: list[ScoreItem]) -> list[float]:
        assert self._network is not None, "call load() first"
        video = self._network.embed_video(pictures(items)[:, ::SCENE_STRIDE])
        return (video * self._network.embed_audio(waves(items))).sum(1).tolist()
