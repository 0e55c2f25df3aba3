"""The embedded world's joint model: caption and scene in, 4 s of small picture and sound out, often in time.

The scene is the average picture of a clip: it shows what stands still, and nothing of when things happen.

The model was pre-trained on the world's `wild` split, whose sound is often late, wrong or noisy, so that
preference has something to repair. It is of no use outside the embedded world.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, Self

import av
import numpy as np
import torch
from pydantic import PrivateAttr
from torch import Tensor, nn

from foleypref.flow.convention import Latents, repeated
from foleypref.media.clip import held
from foleypref.models.backbones import Conditions, Media, ModelSpec, VideoSpec
from foleypref.models.backbones._world import AUDIO_DIM, FRAME_SIDE, WorldModel
from foleypref.networks.world_joint import WorldJointDiT
from foleypref.networks.world_video_codec import WorldVideoCodec
from foleypref.world import CLIP_SECONDS, FPS, NUM_FRAMES, SAMPLE_RATE
from foleypref.world.weights import file_hash, read_frozen, weights_path

VIDEO_DIM = 144


class WorldJoint(WorldModel):
    """Settings: `weights`, a tuned network's file ("" is the packaged base)."""

    notice: ClassVar[str] = (
        "the world's joint model knows the embedded world alone: its pictures are 48 pixels wide"
    )
    NETWORK: ClassVar[type[nn.Module]] = WorldJointDiT
    PACKAGED: ClassVar[str] = "joint"
    CODECS: ClassVar[tuple[str, ...]] = ("codec", "video_codec")

    _video_codec: WorldVideoCodec | None = PrivateAttr(default=None)

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
    def feature_key(self) -> str:
        """Names the weights of text tower and video codec, and the decoder."""
        return f"world_joint/{file_hash(*map(weights_path, ('features', 'video_codec')))}/av{av.__version__}"

    def load(self, device: str | torch.device = "cpu") -> Self:
        self._video_codec = read_frozen(WorldVideoCodec(), "video_codec", torch.device(device))
        return super().load(device)

    @torch.no_grad()
    def condition(self, media: Sequence[Media]) -> Conditions:
        """Compute the captions' embeddings and the scenes' latents: {"text": (B, 64), "scene": (B, 144)}.

        The scene is a picture's average over time, because the model itself is to make what moves. Without a
        picture it is zeros, the average of all clips.
        """
        assert self._features is not None, "call load() first"
        text = self._features.captions([m.prompt for m in media])
        has_prompt = torch.tensor([bool(m.prompt.strip()) for m in media], device=self._device)
        scene = torch.zeros(len(media), VIDEO_DIM, device=self._device)
        shown = [row for row, m in enumerate(media) if m.frames]
        if shown:
            scene[shown] = self._pictures([media[row] for row in shown]).mean(1)
        return {"text": text * has_prompt[:, None], "scene": scene}

    def null(self, conditions: Conditions) -> Conditions:
        """Return no caption and the same scene: guidance strengthens the events, not the background."""
        return {**conditions, "text": torch.zeros_like(conditions["text"])}

    def velocity(self, x_t: Latents, t: Tensor, conditions: Conditions) -> Latents:
        """Return v(x_t, t | caption, scene) of {"audio": (B, 100, 32), "video": (B, 100, 144)}."""
        x_t, t = repeated(x_t, t, len(conditions["text"]))
        v = self.network(x_t["video"], x_t["audio"], t, conditions["text"], conditions["scene"])
        return {"audio": v.audio, "video": v.video}

    @torch.no_grad()
    def encode_media(self, media: Sequence[Media]) -> Latents:
        """Encode picture and sound of clips: {"audio": (B, 100, 32), "video": (B, 100, 144)}."""
        return {**super().encode_media(media), "video": self._pictures(media)}

    @torch.no_grad()
    def decode_video(self, latents: Latents) -> Tensor:
        """Decode {"video": (B, 100, 144)} to frames (B, 100, 48, 48, 3) uint8."""
        assert self._video_codec is not None, "call load() first"
        return self._video_codec.decode(latents["video"].to(self._device).float())

    def _pictures(self, media: Sequence[Media]) -> Tensor:
        """Encode the clips' pictures to latents (B, 100, 144). Raises ValueError if one has none."""
        assert self._video_codec is not None, "call load() first"
        pictures = [m.frames["video"] for m in media if len(m.frames.get("video", ()))]
        if len(pictures) < len(media):
            raise ValueError(f"{len(media) - len(pictures)} of {len(media)} clips have no picture to encode")
        frames = torch.from_numpy(np.stack([held(p, NUM_FRAMES) for p in pictures])).to(self._device)
        return self._video_codec.encode(frames)
