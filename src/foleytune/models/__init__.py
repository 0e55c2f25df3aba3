"""Flow models: video and text in, latents of sound (and, for joint models, of video) out.

One file, one model. Everything the stages ask of a model is in `Model`; latents and velocities are
`dict[str, Tensor]` keyed by modality and follow the convention of `foleytune.flow`.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from foleytune.flow import Latents, Solver, guide, integrate, noise_like_rows
from foleytune.media import read_clip
from foleytune.records import Clip

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


class Model(Protocol):
    """The whole contract of a model. Settings are the part's fields; weights come with `load`."""

    notice: ClassVar[str]
    """One line that anybody who listens to this model must know, or ""."""

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


def read_media(root: Path, clip: Clip, spec: ModelSpec, *, audio: bool = True) -> Media:
    """Decode a clip the way a model wants it, picture and sound in one pass. Raises MediaError.

    `root` is the workspace's, against which relative paths are read; `audio=False` leaves the sound out.
    """
    found = read_clip(
        root / clip.path,
        start_s=clip.start_s,
        duration_s=spec.clip_seconds,
        fps=spec.frames.fps,
        size=spec.frames.size,
        sample_rate=spec.sample_rate,
        audio=audio and clip.has_audio,
    )
    return Media(found.frames, found.wave, clip.prompt)


M = TypeVar("M", bound=Model)


def with_network(model: M, network: nn.Module) -> M:
    """A view of `model` around another flow network; everything else (autoencoder, settings) is shared."""
    view = copy.copy(model)
    view.set_network(network)
    return view


def frozen_copy(model: M) -> M:
    """The reference: a view of `model` around a frozen copy of its flow network, as it is now.

    Take it before the network is wrapped (DDP): a wrapper would be copied with it.
    """
    return with_network(model, copy.deepcopy(model.network).requires_grad_(False).eval())


def fingerprint_of(network: nn.Module) -> str:
    """Hash of a network's parameters and buffers, names and bytes: 16 hex characters."""
    state = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        state.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()[:16]


def sample_latents(
    model: Model,
    conditions: Conditions,
    seeds: Sequence[int],
    *,
    num_steps: int,
    guidance_scale: float,
    solver: Solver = "euler",
    negative: Conditions | None = None,
) -> Latents:
    """Integrate the flow from seeded noise, both guidance halves in one forward: latents (B, L, D).

    Row i's noise depends on seeds[i] alone. `negative` takes the place of the null conditions.
    """
    device = next(iter(conditions.values())).device
    x0 = {key: noise.to(device) for key, noise in noise_like_rows(model.spec.latents, seeds).items()}
    if guidance_scale == 1.0:
        return integrate(lambda x, t: model.velocity(x, t, conditions), x0, num_steps, solver)
    null = model.null(conditions) if negative is None else negative
    both = {key: torch.cat([conditions[key], null[key]]) for key in conditions}

    def velocity(x_t: Latents, t: Tensor) -> Latents:
        v = model.velocity({k: torch.cat([x_t[k], x_t[k]]) for k in x_t}, torch.cat([t, t]), both)
        n = len(t)
        return guide({k: v[k][:n] for k in v}, {k: v[k][n:] for k in v}, guidance_scale)

    return integrate(velocity, x0, num_steps, solver)
