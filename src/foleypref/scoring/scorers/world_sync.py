"""DeSync in the world: seconds of offset, predicted on a grid of 1/25 s (the role of Synchformer)."""

from __future__ import annotations

from typing import ClassVar

from foleypref.networks.world_towers import SyncJudge
from foleypref.scoring.scorers import ScoreItem
from foleypref.scoring.scorers._world import WorldMeasure, pictures, waves
from foleypref.world import FPS


class WorldSync(WorldMeasure):
    """|offset| in seconds, up to 0.8: the most likely class of the grid, as DeSync takes Synchformer's."""

    trained = "judge_sync"
    empty = SyncJudge
    needs: ClassVar[frozenset[str]] = frozenset({"audio", "video"})
    higher_is_better: ClassVar[dict[str, bool]] = {"desync_s": False}

    def numbers(self, items: list[ScoreItem]) -> list[float]:
        """Return the predicted offset of each sound in seconds, without its sign."""
        network = self.network(SyncJudge)
        logits = network(pictures(items, network), waves(items, network))
        return ((logits.argmax(1) - network.num_lags).abs() / FPS).tolist()
