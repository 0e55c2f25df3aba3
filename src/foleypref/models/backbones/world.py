"""The embedded world's V2A model: a 2M-parameter flow transformer over 25 Hz latents, honestly imperfect.

It was pre-trained on the world's `wild` split, so it has learned late, wrong and noisy sound along with the
right one. It is of no use on real scenes. Conditions are cached like a real backbone's: scene tokens (the
role of CLIP), motion features at the latent rate (Synchformer) and a caption embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from foleypref.flow.convention import Latents, repeated
from foleypref.models.backbones import Conditions, Media, ModelSpec
from foleypref.models.backbones._world import AUDIO_DIM, FRAME_SIDE, WorldModel
from foleypref.models.tools import held_or_black
from foleypref.networks.world_dit import WorldDiT
from foleypref.world import CLIP_SECONDS, FPS, NUM_FRAMES, SAMPLE_RATE
from foleypref.world.weights import file_hash, weights_path


class World(WorldModel):
    """Settings: `weights`, a tuned network's file ("" is the packaged base)."""

    notice: ClassVar[str] = (
        "the world model knows the embedded world alone: on real video its sound means nothing"
    )
    NETWORK: ClassVar[type[nn.Module]] = WorldDiT
    PACKAGED: ClassVar[str] = "flow"

    @property
    def spec(self) -> ModelSpec:
        """One modality, 100 latent frames of 32 channels for 4 s of 16 kHz sound."""
        return ModelSpec({"audio": (NUM_FRAMES, AUDIO_DIM)}, SAMPLE_RATE, CLIP_SECONDS)

    @cached_property
    def feature_key(self) -> str:
        """Names the towers' weights, the frame rule and the frames' size."""
        return f"world/{file_hash(weights_path('features'))}/fps{FPS}x{FRAME_SIDE}"

    @torch.no_grad()
    def condition(self, media: Sequence[Media]) -> Conditions:
        """Compute scene, motion and text features of clips; zeros without frames or without a prompt."""
        assert self._features is not None, "call load() first"
        pictures = [held_or_black(m.frames.get("video", ()), NUM_FRAMES, FRAME_SIDE) for m in media]
        frames = torch.from_numpy(np.stack(pictures)).to(self._device)
        conditions = self._features(frames, [m.prompt for m in media])
        for row, item in enumerate(media):
            if not item.frames:
                conditions["scene"][row], conditions["motion"][row] = 0.0, 0.0
            if not item.prompt.strip():
                conditions["text"][row] = 0.0
        return conditions

    def velocity(self, x_t: Latents, t: Tensor, conditions: Conditions) -> Latents:
        """Return v(x_t, t | conditions) of {"audio": (B, 100, 32)}."""
        c = conditions
        x_t, t = repeated(x_t, t, len(c["text"]))
        return {"audio": self.network(x_t["audio"], t, c["scene"], c["motion"], c["text"])}
