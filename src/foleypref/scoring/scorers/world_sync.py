"""DeSync in the world: seconds of offset, predicted on a grid of 1/25 s (the role of Synchformer)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from foleypref.networks.world_towers import SyncJudge
from foleypref.scoring.scorers import Judgement, ScoreItem, judge_usable
from foleypref.scoring.scorers._world import WorldScorer, pictures, waves
from foleypref.world import FPS


class WorldSync(WorldScorer):
    """|offset| in seconds, up to 0.8: the most likely class of the grid, as DeSync takes Synchformer's."""

    trained = "judge_sync"
    empty = SyncJudge
    needs: ClassVar[frozenset[str]] = frozenset({"audio", "video"})
    higher_is_better: ClassVar[dict[str, bool]] = {"desync_s": False}

    @torch.inference_mode()
    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Predict the offset of each sound."""
        return Judgement({"desync_s": judge_usable(items, self.needs, self._offsets_s)}, {})

    def _offsets_s(self, items: list[ScoreItem]) -> list[float]:
        network = self.network(SyncJudge)
        logits = network(pictures(items, network), waves(items, network))
        return ((logits.argmax(1) - network.num_lags).abs() / FPS).tolist()
