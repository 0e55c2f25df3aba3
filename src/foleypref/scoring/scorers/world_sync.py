"""DeSync in the world: seconds of offset, predicted on a grid of 1/25 s (the role of Synchformer)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from pydantic import PrivateAttr

from foleypref.media.streams import FrameStream
from foleypref.networks.world_towers import SyncJudge
from foleypref.scoring.scorers import PlainScorer, ScoreItem
from foleypref.scoring.scorers._world import PICTURE, judge_each, judge_version, load_judge, pictures, waves
from foleypref.workspace.records import Score
from foleypref.world import FPS


class WorldSync(PlainScorer):
    """|offset| in seconds, up to 0.8: the most likely class of the grid, as DeSync takes Synchformer's."""

    needs: ClassVar[frozenset[str]] = frozenset({"audio", "video"})
    dimensions: ClassVar[tuple[str, ...]] = ("desync_s",)
    higher_is_better: ClassVar[dict[str, bool]] = {"desync_s": False}

    _network: SyncJudge | None = PrivateAttr(default=None)

    @property
    def streams(self) -> tuple[FrameStream, ...]:
        """25 frames a second, 48 pixels a side."""
        return (PICTURE,)

    @property
    def version(self) -> str:
        """Hash of the weights."""
        return judge_version("judge_sync")

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights."""
        self._network, _ = load_judge("judge_sync", lambda _: SyncJudge(), device)
        return self

    @torch.inference_mode()
    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        """One offset an item."""
        return judge_each(items, "world_sync", self.version, "desync_s", self.needs, self._values)

    def _values(self, items: list[ScoreItem]) -> list[float]:
        assert self._network is not None, "call load() first"
        logits = self._network(pictures(items), waves(items))
        return ((logits.argmax(1) - self._network.num_lags).abs() / FPS).tolist()
