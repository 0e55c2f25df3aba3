"""Flow models: video and text in, latents of sound (and, for joint models, of video) out.

One file, one model. Everything the stages ask of a model is in `Model`; latents and velocities are
`dict[str, Tensor]` keyed by modality and follow the convention of `foleytune.flow`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from foleytune.flow import Latents

Conditions = dict[str, Tensor]
"""What a batch is conditioned on, every tensor (B, ...); rows are cached as features."""


@dataclass(frozen=True)
class FrameSpec:
    """How a model wants to see the video: frames a second, and the side of the square crop in pixels."""

    fps: float
    size: int


@dataclass(frozen=True)
class ModelSpec:
    """Shapes and rates of a model. `latents` are per-row shapes, `{"audio": (L, D)}`."""

    latents: dict[str, tuple[int, ...]]
    sample_rate: int  # Hz of encode's input and decode's output
    clip_seconds: float
    frames: FrameSpec


@dataclass(frozen=True)
class Media:
    """One clip as arrays: frames (T, H, W, 3) uint8 at `FrameSpec`, wave (N,) float32 at the model's rate."""

    frames: np.ndarray | None = None
    wave: np.ndarray | None = None
    prompt: str = ""
    duration_s: float = field(default=0.0)


class Model(Protocol):
    """The whole contract of a model. Settings are the part's fields; weights come with `load`."""

    @property
    def spec(self) -> ModelSpec:
        """Shapes and rates, known before loading."""
        ...

    @property
    def network(self) -> nn.Module:
        """The trainable flow network; `velocity` calls it, so a wrapper put in its place is used."""
        ...

    def set_network(self, network: nn.Module) -> None:
        """Replace the flow network (for DDP wrappers, LoRA, frozen copies)."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of all weights that shape a candidate."""
        ...

    @property
    def feature_key(self) -> str:
        """Names the condition networks, their weights, the frame rule and the decoder: the cache key."""
        ...

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights; nothing heavy happens before. Returns itself."""
        ...

    def condition(self, media: Sequence[Media]) -> Conditions:
        """Conditions of a batch of clips; no gradient. A clip without frames gets null video."""
        ...

    def null(self, conditions: Conditions) -> Conditions:
        """Conditions of the same shapes that say nothing, for guidance and dropout."""
        ...

    def velocity(self, x_t: Latents, t: Tensor, conditions: Conditions) -> Latents:
        """v(x_t, t | conditions), t (B,) in [0, 1] with 0 noise; shapes as x_t."""
        ...

    def encode(self, waves: Tensor) -> Latents:
        """Waves (B, N) at the spec's rate to normalised latents."""
        ...

    def decode(self, latents: Latents) -> Tensor:
        """Latents to waves (B, N) at the spec's rate, in [-1, 1]."""
        ...

    def export(self, path: str) -> None:
        """Write the tuned network as a file that `weights=path` loads again."""
        ...
