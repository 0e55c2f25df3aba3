"""The world's condition towers in one module: standardised scene, motion and caption features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foleypref.networks.world_towers import MotionTower, SceneTower, TextTower, word_ids

SCENE_STRIDE = 12  # every 12th frame is a scene token: 9 of 100


class WorldFeatures(nn.Module):
    """The condition towers, each output standardised with stored statistics, so that zeros mean "nothing"."""

    text_mean: Tensor
    text_std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.scene, self.motion, self.text = SceneTower(), MotionTower(), TextTower()
        for name in ("scene", "motion", "text"):
            self.register_buffer(f"{name}_mean", torch.zeros(64))
            self.register_buffer(f"{name}_std", torch.ones(64))

    def forward(self, frames: Tensor, captions: list[str]) -> dict[str, Tensor]:
        """frames (B, 100, 48, 48, 3) uint8 -> scene (B, 9, 64), motion (B, 100, 64), text (B, 64)."""
        raw = {
            "scene": self.scene(frames[:, ::SCENE_STRIDE]),
            "motion": self.motion(frames),
        }
        features = {k: (v - getattr(self, f"{k}_mean")) / getattr(self, f"{k}_std") for k, v in raw.items()}
        return {**features, "text": self.captions(captions)}

    def captions(self, captions: list[str]) -> Tensor:
        """Embed only captions: (B, 64)."""
        raw = self.text(word_ids(captions).to(self.text_mean.device))
        return (raw - self.text_mean) / self.text_std
