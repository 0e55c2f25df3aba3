"""Flow models: video and text in, latents of sound (and, for joint models, of video) out.

One file, one model. Everything the stages ask of a model is in `Model`; latents and velocities are
`dict[str, Tensor]` keyed by modality and follow the convention of `foleytune.flow`.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol, Self, TypeVar, cast

import numpy as np
import torch
from pydantic import PrivateAttr
from torch import Tensor, nn

from foleytune.costs import Cost
from foleytune.flow import Latents, VelocityFn, guide, noise_like_rows
from foleytune.media import MediaError
from foleytune.plugins import Part
from foleytune.records import Clip
from foleytune.solvers import COUPLED, AnySolver, solve

SHORT_S = 0.5  # a picture that ends this much before the model's length holds its last frame

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
        """Conditions of the same shapes that say nothing, for guidance and dropout."""
        ...

    def prepare(self, conditions: Conditions) -> Conditions:
        """What `velocity` makes of conditions before it looks at x_t and t, so that sampling does it once.

        `velocity` takes conditions either way; training gives them unprepared, for the gradient.
        """
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

    def encode(self, waves: Tensor) -> Latents:
        """To be written."""
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


def read_clip_media(root: Path, clip: Clip, model: Model, *, audio: bool = True) -> Media:
    """Decode a clip the way a model wants it. Raises MediaError, also where the picture is too short for it.

    `root` is the workspace's, against which relative paths are read; `audio=False` leaves the sound out.
    """
    media = model.read(root / clip.path, clip.start_s, clip.prompt, audio=audio and clip.has_audio)
    wanted = model.spec.clip_seconds
    if media.seconds is not None and media.seconds < wanted - SHORT_S:
        raise MediaError(
            f"{clip.path}: {media.seconds:.2f} s of picture from {clip.start_s:g} s on, the model takes "
            f"{wanted:g} s; set its duration lower or leave the clip out"
        )
    return media


M = TypeVar("M", bound=Model)


def with_network(model: M, network: nn.Module) -> M:
    """A view of `model` around another flow network; everything else (autoencoder, settings) is shared."""
    view = copy.copy(model)
    view.set_network(network)
    return view


def unwrapped(network: nn.Module) -> nn.Module:
    """The network itself, out of the wrappers (DDP) that keep it as their `module`."""
    while isinstance(inner := getattr(network, "module", None), nn.Module):
        network = inner
    return network


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
    solver: AnySolver = "euler",
    negative: Conditions | None = None,
) -> Latents:
    """Integrate the flow from seeded noise, both guidance halves in one forward: latents (B, L, D).

    Row i's noise depends on seeds[i] alone. `negative` takes the place of the null conditions. At a scale of
    1 or less the conditional flow is followed alone.
    """
    if solver in COUPLED and len(seeds) > 1:
        rows = [
            sample_latents(
                model,
                {key: value[row : row + 1] for key, value in conditions.items()},
                [seed],
                num_steps=num_steps,
                guidance_scale=guidance_scale,
                solver=solver,
                negative=negative and {key: value[row : row + 1] for key, value in negative.items()},
            )
            for row, seed in enumerate(seeds)
        ]
        return {key: torch.cat([row[key] for row in rows]) for key in rows[0]}
    device = next(iter(conditions.values())).device
    x0 = {key: noise.to(device) for key, noise in noise_like_rows(model.spec.latents, seeds).items()}
    velocity = _flow_of(model, conditions, guidance_scale, negative)
    return solve(velocity, x0, num_steps, solver)


def _flow_of(
    model: Model, conditions: Conditions, guidance_scale: float, negative: Conditions | None
) -> VelocityFn:
    """The guided velocity, its conditions prepared."""
    if guidance_scale <= 1.0:
        prepared = model.prepare(conditions)
        return lambda x, t: model.velocity(x, t, prepared)
    null = model.null(conditions) if negative is None else negative
    both = model.prepare({key: torch.cat([conditions[key], null[key]]) for key in conditions})

    def velocity(x_t: Latents, t: Tensor) -> Latents:
        v = model.velocity(x_t, t, both)
        n = len(t)
        return guide({k: v[k][:n] for k in v}, {k: v[k][n:] for k in v}, guidance_scale)

    return velocity
