"""DeSync in the world: seconds of offset, predicted on a grid of 1/25 s (the role of Synchformer)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from pydantic import PrivateAttr

from foleypref.networks.world_towers import SyncJudge
from foleypref.scoring.scorers import Judgement, ScoreItem, judge_usable, loaded
from foleypref.scoring.scorers._world import WorldScorer, load_judge, pictures, waves
from foleypref.world import FPS


class WorldSync(WorldScorer):
    """|offset| in seconds, up to 0.8: the most likely class of the grid, as DeSync takes Synchformer's."""

    trained: ClassVar[str] = "judge_sync"
    needs: ClassVar[frozenset[str]] = frozenset({"audio", "video"})
    dimensions: ClassVar[tuple[str, ...]] = ("desync_s",)
    higher_is_better: ClassVar[dict[str, bool]] = {"desync_s": False}

    _network: SyncJudge | None = PrivateAttr(default=None)

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights and return itself."""
        self._network, _ = load_judge(self.trained, SyncJudge(), device)
        return self

    @torch.inference_mode()
    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Predict the offset of each sound."""
        return Judgement({"desync_s": judge_usable(items, self.needs, self._offsets_s)}, {})

    def _offsets_s(self, items: list[ScoreItem]) -> list[float]:
        network = loaded(self._network)
        logits = network(pictures(items, network), waves(items, network))
        return ((logits.argmax(1) - network.num_lags).abs() / FPS).tolist()
