"""The base of both models of the embedded world: 4 s of 16 kHz sound by one codec, packaged weights."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import av
import torch
from pydantic import PrivateAttr
from torch import Tensor, nn

from foleypref.flow.convention import Latents
from foleypref.media.clip import read_clip
from foleypref.models.backbones import Media, Model
from foleypref.models.tools import unwrapped
from foleypref.networks.world_codec import WorldCodec
from foleypref.networks.world_towers import WorldFeatures
from foleypref.world import CLIP_SECONDS, FPS, SAMPLE_RATE
from foleypref.world.weights import file_hash, read_frozen, read_network, weights_path, write_network

FRAME_SIDE = 48  # pixels
AUDIO_DIM = 32


class WorldModel(Model):
    """Settings: `weights`, a tuned network's file ("" is the packaged base)."""

    weights: str = ""

    lora_targets: ClassVar[str] = "all-linear"
    NETWORK: ClassVar[type[nn.Module]]
    PACKAGED: ClassVar[str]  # name of the base weights
    CODECS: ClassVar[tuple[str, ...]] = ("codec",)  # names of the codecs' weights

    _codec: WorldCodec | None = PrivateAttr(default=None)
    _features: WorldFeatures | None = PrivateAttr(default=None)
    _device: torch.device = PrivateAttr(default=torch.device("cpu"))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the files of transformer, codecs and feature towers."""
        return file_hash(self._weights_path, *map(weights_path, (*self.CODECS, "features")))

    @cached_property
    def latent_key(self) -> str:
        """Names the codecs' weights and the decoder."""
        return f"{self.part_name()}/{file_hash(*map(weights_path, self.CODECS))}/av{av.__version__}"

    def load(self, device: str | torch.device = "cpu") -> Self:
        self._device = torch.device(device)
        self._network = read_network(self.NETWORK, self._weights_path, self._device)
        self._codec = read_frozen(WorldCodec(), "codec", self._device)
        self._features = read_frozen(WorldFeatures(), "features", self._device)
        return self

    def read(self, path: Path, start_s: float = 0.0, prompt: str = "", *, audio: bool = True) -> Media:
        """Read 4 s of a file, 100 frames of 48 × 48 pixels as stream "video"."""
        clip = read_clip(
            path,
            start_s=start_s,
            duration_s=CLIP_SECONDS,
            fps=FPS,
            size=FRAME_SIDE,
            sample_rate=SAMPLE_RATE,
            audio=audio,
        )
        return Media({} if clip.frames is None else {"video": clip.frames}, clip.wave, prompt)

    @torch.no_grad()
    def encode(self, waves: Tensor) -> Latents:
        """Encode waves (B, 64000) to {"audio": (B, 100, 32)}."""
        assert self._codec is not None, "call load() first"
        return {"audio": self._codec.encode(waves.to(self._device))}

    @torch.no_grad()
    def decode(self, latents: Latents) -> Tensor:
        """Decode {"audio": (B, 100, 32)} to waves (B, 64000)."""
        assert self._codec is not None, "call load() first"
        return self._codec.decode(latents["audio"].to(self._device).float())

    def export(self, path: str) -> None:
        """Write only the transformer: training never changes codecs and towers."""
        write_network(unwrapped(self.network), Path(path), self._weights_path)

    @property
    def _weights_path(self) -> Path:
        return Path(self.weights).expanduser() if self.weights else weights_path(self.PACKAGED)
