"""A joint model's picture in the world: features for a Fréchet distance, and how much of it moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch

from foleypref.networks.world_towers import WorldFeatures
from foleypref.scoring.scorers import Judgement, ScoreItem, Unscored, Value
from foleypref.scoring.scorers._world import PICTURE, WorldScorer, pictures

SCENE_STRIDE = 12  # frames from one embedded picture to the next


class WorldPicture(WorldScorer):
    """Motion, the mean change of a pixel from frame to frame in [0, 255]; features (192,) of a picture.

    The features are those that condition the world's video-to-audio model: scene tokens (mean and maximum
    over time) and the spread of motion features over time. A video-to-audio model's are those of the clip.
    """

    trained = "features"
    empty = WorldFeatures
    needs: ClassVar[frozenset[str]] = frozenset({"video"})
    higher_is_better: ClassVar[dict[str, bool]] = {"motion": True}
    embeddings: ClassVar[tuple[str, ...]] = ("features",)  # (B, 192)
    asides: ClassVar[tuple[str, ...]] = ("motion",)

    @torch.inference_mode()
    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Measure motion and embed each picture, NaN where there is none."""
        network, rows = self.network(WorldFeatures), torch.full((len(items), 192), torch.nan)
        seen = [i for i, item in enumerate(items) if len(item.frames.get(PICTURE.key, ()))]
        if seen:
            frames = pictures([items[i] for i in seen], network)
            scene = network.scene(frames[:, ::SCENE_STRIDE])  # (B, S, 64)
            moving = network.motion(frames).std(1)  # (B, 64)
            rows[seen] = torch.cat([scene.mean(1), scene.amax(1), moving], dim=1).float().cpu()
        return Judgement({"motion": [_motion(item) for item in items]}, {"features": rows})


def _motion(item: ScoreItem) -> Value:
    frames = item.frames.get(PICTURE.key, np.empty(0))
    if len(frames) < 2:
        return Unscored("no video")
    return float(np.abs(np.diff(frames.astype(np.int16), axis=0)).mean())
