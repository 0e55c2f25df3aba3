"""Flow models: video and text in, latents of sound (and, for joint models, of video) out.

One file holds one model, a class that subclasses `Model`. Latents and velocities are `dict[str, Tensor]`
keyed by modality and follow the convention of `flow/convention.py`. What can be done with any model (sample,
freeze, read a clip) is in `models/tools.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
from pydantic import PrivateAttr
from torch import Tensor, nn

from foleypref.flow.convention import Latents
from foleypref.models.costs import Cost
from foleypref.settings.parts import FromDrawer, Part, build, part_help

Conditions = dict[str, Tensor]
"""What a batch is conditioned on, every tensor (B, ...); rows are cached as features."""


@dataclass(frozen=True)
class VideoSpec:
    """The frames that a joint model generates: (num_frames, height, width, 3) uint8 at `fps`."""

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

    Each model's `read` decides which streams there are and their size and rate; without a picture, `frames`
    is {}. `seconds` is the length of the picture, None if it was not measured.
    """

    frames: Mapping[str, np.ndarray] = field(default_factory=dict)
    wave: np.ndarray | None = None
    prompt: str = ""
    seconds: float | None = None


class Model(Part, ABC):
    """Base of every model. The fields of a subclass are its settings; weights come with `load`.

    A subclass must write the abstract members. The others suit a video-to-audio model of one length whose
    null conditions are zeros, and are overridden where a model differs.
    """

    notice: ClassVar[str]
    """One line that everyone who listens to this model must know, or ""."""

    lora_targets: ClassVar[str]
    """Modules that get a LoRA adapter: a regular expression for peft, or "all-linear"."""

    _network: nn.Module | None = PrivateAttr(default=None)

    @property
    @abstractmethod
    def spec(self) -> ModelSpec:
        """Shapes and rates, known before loading."""

    @abstractmethod
    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights onto `device`, set the network and return self; nothing heavy happens before."""

    @property
    def network(self) -> nn.Module:
        """The trainable flow network; `velocity` calls it, so a wrapper put in its place is used."""
        assert self._network is not None, "call load() first"
        return self._network

    def set_network(self, network: nn.Module) -> None:
        """Replace the flow network by a wrapped, adapted or frozen one."""
        self._network = network

    @abstractmethod
    def export(self, path: str) -> None:
        """Write the tuned network as a file that `weights=path` loads again."""

    # What clips look like to the model.

    @abstractmethod
    def read(self, path: Path, start_s: float = 0.0, prompt: str = "", *, audio: bool = True) -> Media:
        """Decode `clip_seconds` of a file into the streams that this model takes. Raises MediaError.

        `audio=False` leaves the sound out.
        """

    @abstractmethod
    def condition(self, media: Sequence[Media]) -> Conditions:
        """Compute the conditions of clips, without gradient. A clip without frames gets null video."""

    def null(self, conditions: Conditions) -> Conditions:
        """Return conditions of the same shapes without information, for guidance and dropout; default: zeros.

        A "scene" may stay: guidance is to strengthen the events that a prompt asks for, not the background.
        """
        return {key: torch.zeros_like(value) for key, value in conditions.items()}

    # The flow.

    @abstractmethod
    def velocity(self, x_t: Latents, t: Tensor, conditions: Conditions) -> Latents:
        """Return v(x_t, t | conditions) in the shapes of x_t; t (B,) is in [0, 1], 0 is noise.

        Conditions may have k B rows, as under guidance: x_t and t are then repeated for every group of B, and
        k B velocities come back.
        """

    def prepare(self, conditions: Conditions) -> Conditions:
        """Do the part of `velocity` that depends on neither x_t nor t, so that sampling does it once.

        `velocity` takes conditions prepared or not; training leaves them unprepared, for the gradient. By
        default nothing is prepared.
        """
        return conditions

    def times(self, num_steps: int) -> list[float] | None:
        """Return the `num_steps` + 1 times that bound a solver's steps; None (default): equal steps."""
        return None

    # Latents and media.

    @abstractmethod
    def encode(self, waves: Tensor) -> Latents:
        """Encode waves (B, N) at the spec's rate to normalised latents {"audio": (B, L, D)}."""

    @abstractmethod
    def decode(self, latents: Latents) -> Tensor:
        """Decode the sound of latents to waves (B, N) at the spec's rate, in [-1, 1]."""

    def encode_media(self, media: Sequence[Media]) -> Latents:
        """Encode clips that `read` returned to normalised latents, by default of their sound.

        Joint models add "video". Raises ValueError for clips that lack sound (or picture).
        """
        waves = [item.wave for item in media if item.wave is not None]
        if len(waves) < len(media):
            raise ValueError(f"{len(media) - len(waves)} of {len(media)} clips have no sound to encode")
        return self.encode(torch.from_numpy(np.stack(waves)))

    def decode_video(self, latents: Latents) -> Tensor:
        """Decode a joint model's latents to frames (B, T, H, W, 3) uint8 as `spec.video` has them."""
        raise ValueError(f"{self.part_name()} makes sound alone, no picture")

    def with_duration(self, seconds: float) -> Self:
        """Return a view of this model that generates another length. Raises ValueError if it has only one."""
        if seconds != (own := self.spec.clip_seconds):
            name = self.part_name()
            raise ValueError(
                f"{name} makes {own:g} s of sound at a time, asked for {seconds:g} s; use windows"
            )
        return self

    # Cache keys, and the cost.

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of all weights that shape a candidate."""

    @property
    @abstractmethod
    def feature_key(self) -> str:
        """Cache key of conditions: names the networks, their weights, the frame rule and the decoder."""

    @property
    def latent_key(self) -> str:
        """Cache key of encoded clips: names all that `encode_media` depends on.

        The default, the hash of all weights, is safe, but tunings then cannot share latents; override it with
        the codec's hash and the decoder's version.
        """
        return f"{self.part_name()}/{self.fingerprint}"

    def cost(self) -> Cost | None:
        """Return what one clip costs, for plans, known without loading; None (default): it is not counted."""
        return None


ModelPart = Annotated[Model, FromDrawer("models"), part_help("models")]
"""A settings field that takes a model, its name, or a mapping of its name and settings."""


def build_model(name: str, **settings: Any) -> Model:
    """Build the model that `name` stands for, as `settings.parts.build` does. Raises ValueError."""
    model = build("models", name, **settings)
    if not isinstance(model, Model):
        raise ValueError(f"{name!r} is no model: {type(model).__name__} does not subclass Model")
    return model
