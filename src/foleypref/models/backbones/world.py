"""The embedded world's V2A model: a 2M-parameter flow transformer over 25 Hz latents, honestly imperfect.

Pre-trained on the world's `wild` split, so it has learned late, wrong and noisy sound along with the right
one. It is of no use on real scenes. Conditions are cached like a real backbone's: scene tokens (the role of
CLIP), motion features at the latent rate (Synchformer) and a caption embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import av
import numpy as np
import torch
from pydantic import PrivateAttr
from torch import Tensor

from foleypref.flow.convention import Latents, repeated
from foleypref.media.clip import held, read_clip
from foleypref.models.backbones import Conditions, Media, ModelSpec, NetworkModel
from foleypref.models.tools import unwrapped
from foleypref.networks.world_codec import WorldCodec
from foleypref.networks.world_dit import WorldDiT
from foleypref.networks.world_features import WorldFeatures
from foleypref.world import CLIP_SECONDS, FPS, NUM_FRAMES, SAMPLE_RATE
from foleypref.world.weights import file_hash, read_frozen, read_network, weights_path, write_network

FRAME_SIDE = 48  # pixels


class World(NetworkModel):
    """Settings: `weights`, a tuned network's file ("" is the packaged base)."""

    weights: str = ""

    notice: ClassVar[str] = (
        "the world model knows the embedded world alone: on real video its sound means nothing"
    )

    lora_targets: ClassVar[str] = "all-linear"

    _codec: WorldCodec | None = PrivateAttr(default=None)
    _features: WorldFeatures | None = PrivateAttr(default=None)
    _device: torch.device = PrivateAttr(default=torch.device("cpu"))

    @property
    def spec(self) -> ModelSpec:
        """One modality, 100 latent frames of 32 channels for 4 s of 16 kHz sound."""
        return ModelSpec({"audio": (NUM_FRAMES, 32)}, SAMPLE_RATE, CLIP_SECONDS)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the transformer, codec and feature files."""
        return file_hash(self._weights_path, weights_path("codec"), weights_path("features"))

    @cached_property
    def feature_key(self) -> str:
        """Towers' weights, frame rule and size."""
        return f"world/{file_hash(weights_path('features'))}/fps{FPS}x{FRAME_SIDE}"

    @cached_property
    def latent_key(self) -> str:
        """The codec's weights and the decoder."""
        return f"world/{file_hash(weights_path('codec'))}/av{av.__version__}"

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read codec, towers and transformer."""
        self._device = torch.device(device)
        self._network = read_network(WorldDiT, self._weights_path, self._device)
        self._codec = read_frozen(WorldCodec(), "codec", self._device)
        self._features = read_frozen(WorldFeatures(), "features", self._device)
        return self

    def with_duration(self, seconds: float) -> Self:
        """This model knows 4 s and nothing else."""
        if seconds != CLIP_SECONDS:
            raise ValueError(f"world makes {CLIP_SECONDS:g} s of sound at a time, asked for {seconds:g} s")
        return self

    def read(self, path: Path, start_s: float = 0.0, prompt: str = "", *, audio: bool = True) -> Media:
        """4 s of a file, 100 frames of 48 × 48 pixels as stream "video"."""
        found = read_clip(
            path,
            start_s=start_s,
            duration_s=CLIP_SECONDS,
            fps=FPS,
            size=FRAME_SIDE,
            sample_rate=SAMPLE_RATE,
            audio=audio,
        )
        return Media({} if found.frames is None else {"video": found.frames}, found.wave, prompt)

    @torch.no_grad()
    def condition(self, media: Sequence[Media]) -> Conditions:
        """Cached features of clips; without frames, the null video."""
        assert self._features is not None, "call load() first"
        frames = torch.from_numpy(np.stack([_frames(m) for m in media])).to(self._device)
        conditions = self._features(frames, [m.prompt for m in media])
        for row, item in enumerate(media):
            if not item.frames:
                conditions["scene"][row], conditions["motion"][row] = 0.0, 0.0
            if not item.prompt.strip():
                conditions["text"][row] = 0.0
        return conditions

    def prepare(self, conditions: Conditions) -> Conditions:
        """As they are: the transformer's own layers on them cost next to nothing."""
        return conditions

    def velocity(self, x_t: Latents, t: Tensor, conditions: Conditions) -> Latents:
        """v(x_t, t | conditions) for {"audio": (B, 100, 32)}."""
        c = conditions
        x_t, t = repeated(x_t, t, len(c["text"]))
        return {"audio": self.network(x_t["audio"], t, c["scene"], c["motion"], c["text"])}

    @torch.no_grad()
    def encode(self, waves: Tensor) -> Latents:
        """Waves (B, 64000) -> {"audio": (B, 100, 32)}."""
        assert self._codec is not None, "call load() first"
        return {"audio": self._codec.encode(waves.to(self._device))}

    @torch.no_grad()
    def decode(self, latents: Latents) -> Tensor:
        """{"audio": (B, 100, 32)} -> waves (B, 64000)."""
        assert self._codec is not None, "call load() first"
        return self._codec.decode(latents["audio"].to(self._device).float())

    def cost(self) -> None:
        """Minutes on a CPU: not counted."""
        return

    def export(self, path: str) -> None:
        """Write the transformer alone; codec and towers never change."""
        write_network(unwrapped(self.network), Path(path), self._weights_path)

    @property
    def _weights_path(self) -> Path:
        return Path(self.weights).expanduser() if self.weights else weights_path("flow")


def _frames(media: Media) -> np.ndarray:
    """Exactly 100 frames: a shorter clip holds its last frame, a longer one is cut."""
    video = media.frames.get("video", np.empty(0))
    if len(video) == 0:
        return np.zeros((NUM_FRAMES, FRAME_SIDE, FRAME_SIDE, 3), np.uint8)
    return held(video, NUM_FRAMES)
