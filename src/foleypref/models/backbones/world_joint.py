"""The embedded world's joint model: caption and scene in, 4 s of small picture and sound out, often in time.

The scene is the average picture of a clip: it shows what stands still, and nothing of when things happen.

Pre-trained on the world's `wild` split, whose sound is often late, wrong or noisy, so that preference has
something to repair. It is of no use outside the embedded world.
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
from foleypref.media.clip import held
from foleypref.models.backbones import Conditions, Media, ModelSpec, NetworkModel, VideoSpec
from foleypref.models.backbones.world import FRAME_SIDE, World
from foleypref.models.tools import unwrapped
from foleypref.networks.world_codec import WorldCodec
from foleypref.networks.world_features import WorldFeatures
from foleypref.networks.world_joint import WorldJointDiT
from foleypref.networks.world_video_codec import WorldVideoCodec
from foleypref.world import CLIP_SECONDS, FPS, NUM_FRAMES, SAMPLE_RATE
from foleypref.world.weights import file_hash, read_frozen, read_network, weights_path, write_network

VIDEO_DIM, AUDIO_DIM = 144, 32


class WorldJoint(NetworkModel):
    """Settings: `weights`, a tuned network's file ("" is the packaged base)."""

    weights: str = ""

    notice: ClassVar[str] = (
        "the world's joint model knows the embedded world alone: its pictures are 48 pixels wide"
    )

    lora_targets: ClassVar[str] = "all-linear"

    _codec: WorldCodec | None = PrivateAttr(default=None)
    _video_codec: WorldVideoCodec | None = PrivateAttr(default=None)
    _features: WorldFeatures | None = PrivateAttr(default=None)
    _device: torch.device = PrivateAttr(default=torch.device("cpu"))

    @property
    def spec(self) -> ModelSpec:
        """Two modalities on one clock, 100 latent frames each for 4 s."""
        latents: dict[str, tuple[int, ...]] = {
            "audio": (NUM_FRAMES, AUDIO_DIM),
            "video": (NUM_FRAMES, VIDEO_DIM),
        }
        video = VideoSpec(NUM_FRAMES, FRAME_SIDE, FRAME_SIDE, FPS)
        return ModelSpec(latents, SAMPLE_RATE, CLIP_SECONDS, video=video)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the transformer, both codecs and the text tower's file."""
        return file_hash(self._weights_path, *map(weights_path, ("codec", "video_codec", "features")))

    @cached_property
    def feature_key(self) -> str:
        """The weights of text tower and video codec, and the decoder."""
        return f"world_joint/{file_hash(*map(weights_path, ('features', 'video_codec')))}/av{av.__version__}"

    @cached_property
    def latent_key(self) -> str:
        """Both codecs' weights and the decoder."""
        return f"world_joint/{file_hash(*map(weights_path, ('codec', 'video_codec')))}/av{av.__version__}"

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read codecs, text tower and transformer."""
        self._device = torch.device(device)
        self._network = read_network(WorldJointDiT, self._weights_path, self._device)
        self._codec = read_frozen(WorldCodec(), "codec", self._device)
        self._video_codec = read_frozen(WorldVideoCodec(), "video_codec", self._device)
        self._features = read_frozen(WorldFeatures(), "features", self._device)
        return self

    def with_duration(self, seconds: float) -> Self:
        """This model knows 4 s and nothing else."""
        if seconds != CLIP_SECONDS:
            raise ValueError(f"world_joint makes {CLIP_SECONDS:g} s at a time, asked for {seconds:g} s")
        return self

    def read(self, path: Path, start_s: float = 0.0, prompt: str = "", *, audio: bool = True) -> Media:
        """4 s of a file, 100 frames of 48 × 48 pixels as stream "video": what the codecs encode."""
        return World().read(path, start_s, prompt, audio=audio)

    @torch.no_grad()
    def condition(self, media: Sequence[Media]) -> Conditions:
        """The captions' embeddings and the scenes' latents: {"text": (B, 64), "scene": (B, 144)}.

        Of a picture its average over time is looked at: what moves is the model's to make. Without a picture
        the scene is zeros, the average of all.
        """
        assert self._features is not None, "call load() first"
        text = self._features.captions([m.prompt for m in media])
        said = torch.tensor([bool(m.prompt.strip()) for m in media], device=self._device)
        scene = torch.zeros(len(media), VIDEO_DIM, device=self._device)
        shown = [row for row, m in enumerate(media) if m.frames]
        if shown:
            scene[shown] = self._pictures([media[row] for row in shown]).mean(1)
        return {"text": text * said[:, None], "scene": scene}

    def null(self, conditions: Conditions) -> Conditions:
        """No caption, the same scene: guidance is to strengthen what is said, not the wall behind it."""
        return {**conditions, "text": torch.zeros_like(conditions["text"])}

    def prepare(self, conditions: Conditions) -> Conditions:
        """As they are: the transformer's own layers on them cost next to nothing."""
        return conditions

    def velocity(self, x_t: Latents, t: Tensor, conditions: Conditions) -> Latents:
        """v(x_t, t | caption, scene) for {"audio": (B, 100, 32), "video": (B, 100, 144)}."""
        x_t, t = repeated(x_t, t, len(conditions["text"]))
        v = self.network(x_t["video"], x_t["audio"], t, conditions["text"], conditions["scene"])
        return {"audio": v.audio, "video": v.video}

    @torch.no_grad()
    def encode(self, waves: Tensor) -> Latents:
        """The sound's half: waves (B, 64000) -> {"audio": (B, 100, 32)}."""
        assert self._codec is not None, "call load() first"
        return {"audio": self._codec.encode(waves.to(self._device))}

    @torch.no_grad()
    def encode_media(self, media: Sequence[Media]) -> Latents:
        """Latents of clips with picture and sound: {"audio": (B, 100, 32), "video": (B, 100, 144)}."""
        return {**super().encode_media(media), "video": self._pictures(media)}

    @torch.no_grad()
    def decode(self, latents: Latents) -> Tensor:
        """The sound: {"audio": (B, 100, 32)} -> waves (B, 64000)."""
        assert self._codec is not None, "call load() first"
        return self._codec.decode(latents["audio"].to(self._device).float())

    @torch.no_grad()
    def decode_video(self, latents: Latents) -> Tensor:
        """The picture: {"video": (B, 100, 144)} -> frames (B, 100, 48, 48, 3) uint8."""
        assert self._video_codec is not None, "call load() first"
        return self._video_codec.decode(latents["video"].to(self._device).float())

    def _pictures(self, media: Sequence[Media]) -> Tensor:
        """Latents of the clips' pictures (B, 100, 144)."""
        assert self._video_codec is not None, "call load() first"
        pictures = [m.frames["video"] for m in media if len(m.frames.get("video", ()))]
        if len(pictures) < len(media):
            raise ValueError(f"{len(media) - len(pictures)} of {len(media)} clips have no picture to encode")
        frames = torch.from_numpy(np.stack([held(p, NUM_FRAMES) for p in pictures])).to(self._device)
        return self._video_codec.encode(frames)

    def cost(self) -> None:
        """Minutes on a CPU: not counted."""
        return

    def export(self, path: str) -> None:
        """Write the transformer alone; codecs and text tower never change."""
        write_network(unwrapped(self.network), Path(path), self._weights_path)

    @property
    def _weights_path(self) -> Path:
        return Path(self.weights).expanduser() if self.weights else weights_path("joint")
