"""A joint model's picture in the world: features for a Fréchet distance, and how much of it moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from pydantic import PrivateAttr
from torch import Tensor

from foleypref.media.streams import FrameStream
from foleypref.networks.world_features import WorldFeatures
from foleypref.scoring.scorers import PlainScorer, ScoreItem
from foleypref.scoring.scorers._world import PICTURE, judge_version, load_judge, pictures
from foleypref.workspace.records import Score

NAME = "world_picture"
SCENE_STRIDE = 12  # frames between the pictures whose content is looked at


class WorldPicture(PlainScorer):
    """Motion, the mean change of a pixel from frame to frame in [0, 255]; features (192,) of a picture.

    The features are what the world's video-to-audio model is shown: scene tokens (mean and maximum over time)
    and the spread of its motion features over time. Of a video-to-audio model they are the clip's own.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"video"})
    dimensions: ClassVar[tuple[str, ...]] = ("motion",)
    higher_is_better: ClassVar[dict[str, bool]] = {"motion": True}
    embeddings: ClassVar[tuple[str, ...]] = ("features",)
    asides: ClassVar[tuple[str, ...]] = ("motion",)

    _network: WorldFeatures | None = PrivateAttr(default=None)
    _device: torch.device = PrivateAttr(default=torch.device("cpu"))

    @property
    def streams(self) -> tuple[FrameStream, ...]:
        """25 frames a second, 48 pixels a side."""
        return (PICTURE,)

    @property
    def version(self) -> str:
        """Hash of the weights."""
        return judge_version("features")

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights."""
        self._device = torch.device(device)
        self._network, _ = load_judge("features", lambda _: WorldFeatures(), device)
        return self

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        """How much moves."""
        return [Score.make(item.candidate_id, NAME, self.version, "motion", *_motion(item)) for item in items]

    @torch.inference_mode()
    def embed(self, items: Sequence[ScoreItem]) -> dict[str, Tensor]:
        """Features (len(items), 192), NaN without a picture."""
        assert self._network is not None, "call load() first"
        rows = torch.full((len(items), 192), float("nan"))
        seen = [i for i, item in enumerate(items) if len(item.frames.get(PICTURE.key, ()))]
        if seen:
            frames = pictures([items[i] for i in seen]).to(self._device)
            scene = self._network.scene(frames[:, ::SCENE_STRIDE])  # (B, S, 64)
            moving = self._network.motion(frames).std(1)  # (B, 64)
            rows[seen] = torch.cat([scene.mean(1), scene.amax(1), moving], dim=1).float().cpu()
        return {"features": rows}


def _motion(item: ScoreItem) -> tuple[float | None, str]:
    frames = item.frames.get(PICTURE.key, np.empty(0))
    if len(frames) < 2:
        return None, "no video"
    return float(np.abs(np.diff(frames.astype(np.int16), axis=0)).mean()), ""
