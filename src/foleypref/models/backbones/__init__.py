"""Flow models: video and text in, latents of sound (and, for joint models, of video) out.

One file, one model. Everything the stages ask of a model is in `Model`; latents and velocities are
`dict[str, Tensor]` keyed by modality and follow the convention of `flow/convention.py`. What can be done with
any model (sample, freeze, read a clip) is in `models/tools.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol, Self, cast

import numpy as np
import torch
from pydantic import PrivateAttr
from torch import Tensor, nn

from foleypref.flow.convention import Latents
from foleypref.models.costs import Cost
from foleypref.settings.parts import Part

Conditions = dict[str, Tensor]
"""What a batch is conditioned on, every tensor (B, ...); rows are cached as features."""


@dataclass(frozen=True)
class VideoSpec:
    """The picture that a joint model makes: (num_frames, height, width, 3) uint8 at `fps`."""

    num_frames: int
    height: int
    width: int
    fps: float


@dataclass(frozen=True)
class ModelSpec:
    """Shapes and rates of a model. `latents` are per-row shapes, time first, `{"audio": (L, D)}`."""

    latents: dict[str, tuple[int, ...]]
    sample_rate: int  # Hz of encode's input and decode's output
    clip_seconds: float
    any_length: bool = False  # whether `with_duration` takes other lengths
    video: VideoSpec | None = None  # of a joint model, whose latents have "video" too


@dataclass(frozen=True)
class Media:
    """One clip as arrays: frames (T, H, W, 3) uint8 by stream, wave (N,) float32 at the model's rate.

    Which streams there are, at what size and rate, is the model's own affair (`read`); {} is no picture.
    `seconds` is how long the picture lasts, None where nobody looked.
    """

    frames: Mapping[str, np.ndarray] = field(default_factory=dict)
    wave: np.ndarray | None = None
    prompt: str = ""
    seconds: float | None = None


class Model(Protocol):
    """The whole contract of a model. Settings are the part's fields; weights come with `load`."""

    notice: ClassVar[str]
    """One line that anybody who listens to this model must know, or ""."""

    lora_targets: ClassVar[str]
    """Modules that get a LoRA adapter: a regular expression for peft, or "all-linear"."""

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

    @property
    def latent_key(self) -> str:
        """Names what `encode_media` depends on, codec and decoder: what encoded clips are cached under."""
        ...

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights; nothing heavy happens before. Returns itself."""
        ...

    def with_duration(self, seconds: float) -> Self:
        """A view of this model that makes sound of another length; ValueError if it has but one."""
        ...

    def read(self, path: Path, start_s: float = 0.0, prompt: str = "", *, audio: bool = True) -> Media:
        """Decode `clip_seconds` of a file the way this model wants it, in one pass. Raises MediaError.

        `audio=False` leaves the sound out.
        """
        ...

    def condition(self, media: Sequence[Media]) -> Conditions:
        """Conditions of a batch of clips; no gradient. A clip without frames gets null video."""
        ...

    def null(self, conditions: Conditions) -> Conditions:
        """Conditions of the same shapes that say nothing, for guidance and dropout.

        A "scene" may stay: guidance is to strengthen what is said and not the wall behind it.
        """
        ...

    def prepare(self, conditions: Conditions) -> Conditions:
        """What `velocity` makes of conditions before it looks at x_t and t, so that sampling does it once.

        `velocity` takes conditions either way; training gives them unprepared, for the gradient.
        """
        ...

    def times(self, num_steps: int) -> list[float] | None:
        """Where a solver's steps begin and end, `num_steps` + 1 times from 0 to 1; None is equal steps."""
        ...

    def velocity(self, x_t: Latents, t: Tensor, conditions: Conditions) -> Latents:
        """v(x_t, t | conditions), t (B,) in [0, 1] with 0 noise; shapes as x_t.

        Guidance gives conditions of k B rows: x_t and t serve every B of them, and k B velocities come back.
        """
        ...

    def encode(self, waves: Tensor) -> Latents:
        """Waves (B, N) at the spec's rate to normalised latents."""
        ...

    def encode_media(self, media: Sequence[Media]) -> Latents:
        """Normalised latents of clips as `read` gives them, every modality. ValueError without sound."""
        ...

    def decode(self, latents: Latents) -> Tensor:
        """Latents to waves (B, N) at the spec's rate, in [-1, 1]."""
        ...

    def decode_video(self, latents: Latents) -> Tensor:
        """Latents of a joint model to frames (B, T, H, W, 3) uint8 as `spec.video` has them."""
        ...

    def cost(self) -> Cost | None:
        """What one clip costs, for plans; known without loading. None where nobody counts."""
        ...

    def export(self, path: str) -> None:
        """Write the tuned network as a file that `weights=path` loads again."""
        ...


class NetworkModel(Part):
    """What a model need not write again: holding its flow network, and zeros as its null conditions."""

    _network: nn.Module | None = PrivateAttr(default=None)

    @property
    def network(self) -> nn.Module:
        """The trainable flow network."""
        assert self._network is not None, "call load() first"
        return self._network

    def set_network(self, network: nn.Module) -> None:
        """Replace the flow network by a wrapped, adapted or frozen one."""
        self._network = network

    @property
    def latent_key(self) -> str:
        """All weights: right for every model, but of use to no other tuning of it; better name the codec."""
        return f"{self.part_name()}/{cast(Model, self).fingerprint}"

    def null(self, conditions: Conditions) -> Conditions:
        """Zeros, which mark what is absent or are what dropout showed."""
        return {key: torch.zeros_like(value) for key, value in conditions.items()}

    def times(self, num_steps: int) -> list[float] | None:
        """Equal steps."""
        return None

    def encode(self, waves: Tensor) -> Latents:
        """Each model's own."""
        raise NotImplementedError

    def encode_media(self, media: Sequence[Media]) -> Latents:
        """The sound's latents alone, as a video-to-audio model has them."""
        waves = [item.wave for item in media if item.wave is not None]
        if len(waves) < len(media):
            raise ValueError(f"{len(media) - len(waves)} of {len(media)} clips have no sound to encode")
        return self.encode(torch.from_numpy(np.stack(waves)))

    def decode_video(self, latents: Latents) -> Tensor:
        """Only joint models make pictures."""
        raise ValueError(f"{self.part_name()} makes sound alone, no picture")
