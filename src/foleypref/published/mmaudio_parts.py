"""The networks of an MMAudio model, each loaded at its first use and shared by all views of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foleypref.media.files import atomic_path
from foleypref.networks.mmaudio import VARIANTS, MMAudio
from foleypref.networks.synchformer_visual import SynchformerVisual, sync_pixels, visual_weights
from foleypref.published.conversion import write_safetensors
from foleypref.published.filling import Adapt
from foleypref.published.hashes import file_hashes
from foleypref.published.mmaudio_audio import MMAudioCodec, build_codec
from foleypref.published.parts import PublishedParts, adapted, assign_state, content_hashes, copy_for_training
from foleypref.published.registry import files_for
from foleypref.published.weights import load_published
from foleypref.workspace.records import digest

CLIP_FRAMES_AT_ONCE = 16


@dataclass(frozen=True)
class LatentStatistics:
    """Mean and standard deviation of the codec's latents, (1, 1, dim) each, float32."""

    mean: Tensor
    std: Tensor

    def normalise(self, latents: Tensor) -> Tensor:
        """Convert the codec's latents (B, L, dim) to the network's."""
        return (latents - self.mean) / self.std

    def unnormalise(self, latents: Tensor) -> Tensor:
        """Convert the network's latents (B, L, dim) to the codec's."""
        return latents * self.std + self.mean


def sample_rate_of(variant: str) -> int:
    """Return the sample rate (Hz) of a variant, from its name."""
    return 16000 if variant.endswith("16k") else 44100


class MMAudioParts(PublishedParts):
    """Network, codec, CLIP and Synchformer of one variant on one device."""

    statistics: LatentStatistics
    feature_dims: tuple[int, int, int]  # of clip, sync and text

    def __init__(
        self, variant: str, folder: str, device: torch.device, feature_dtype: torch.dtype = torch.float32
    ) -> None:
        roles = ("network", "vae", "vocoder", "clip", "sync")
        files = files_for(f"mmaudio-{variant}")
        super().__init__(dict(zip(roles, files, strict=True)), folder, device)
        self.variant = variant
        self.feature_dtype = feature_dtype  # of CLIP and Synchformer

    def load_network(self, weights: str, dtype: torch.dtype, adapt: Adapt | None = None) -> MMAudio:
        """Return the flow network, official or tuned, changed by `adapt`; frozen statistics stay float32."""
        entry = self.files["network"]
        state = load_published(Path(weights), role=entry.role) if weights else self.load_state("network")
        with torch.device("meta"):
            network = MMAudio(**VARIANTS[self.variant.replace("-", "_")])
        assign_state(network, state, weights or entry.name, entry.role)
        copy_for_training(network, torch.float32)
        network.requires_grad_(True)
        mean, std = (network.get_buffer(name).to(self.device) for name in ("latent_mean", "latent_std"))
        if not (mean.isfinite().all() and std.isfinite().all()):
            raise ValueError(f"{weights or entry.name} has no latent statistics; give a released checkpoint")
        self.statistics = LatentStatistics(mean, std)
        empty = (network.empty_clip_feat, network.empty_sync_feat, network.empty_string_feat)
        clip, sync, text = (value.shape[-1] for value in empty)
        self.feature_dims = clip, sync, text
        return adapted(network, adapt).to(self.device, dtype)

    def network_hashes(self, weights: str, adapter: str) -> str:
        """Hash every file that shapes a candidate's latents and sound."""
        network = Path(weights).expanduser() if weights else self.path("network")
        return digest(*content_hashes([network, self.path("vae"), self.path("vocoder")], adapter))

    def export_network(self, network: nn.Module, path: Path) -> None:
        """Write a state dict with the official keys: .safetensors, or a .pth that upstream loads."""
        state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
        state["latent_mean"], state["latent_std"] = self.statistics.mean.cpu(), self.statistics.std.cpu()
        if path.suffix == ".safetensors":
            write_safetensors(path, state, {"format": "pt", "model": f"mmaudio-{self.variant}"})
            return
        with atomic_path(path) as temporary:
            torch.save(state, temporary)

    @cached_property
    def codec(self) -> MMAudioCodec:
        """VAE and vocoder, in float32."""
        vae, vocoder = self.load_state("vae"), self.load_state("vocoder")
        return build_codec(sample_rate_of(self.variant), vae, vocoder).to(self.device)

    def encoder_hash(self) -> str:
        """Hash the files of CLIP and Synchformer."""
        return digest(*(file_hashes(self.path(role)).sha256 for role in ("clip", "sync")))

    def clip_vectors(self, frames: np.ndarray) -> Tensor:
        """Embed frames (C, 384, 384, 3) uint8 by CLIP: (C, 1024), each of length 1."""
        from foleypref.published.clip import clip_pixels

        pixels = torch.from_numpy(frames).to(self.device).split(CLIP_FRAMES_AT_ONCE)
        dtype = self.feature_dtype
        return torch.cat([self._clip.encode_image(clip_pixels(part).to(dtype)) for part in pixels]).float()

    def text_states(self, prompts: Sequence[str]) -> Tensor:
        """Return CLIP's states of the prompts' tokens, (B, 77, 1024), each of length 1."""
        states: Tensor = self._clip.encode_text(self._ids(prompts).to(self.device))
        return states.float()

    def sync_tokens(self, frames: np.ndarray) -> Tensor:
        """Return Synchformer's tokens (S, 768) of frames (25 per second, 224, 224, 3) uint8."""
        video = sync_pixels(torch.from_numpy(frames).to(self.device)).to(self.feature_dtype)
        tokens: Tensor = self._sync(video[None])[0]
        return tokens.float()

    def _ids(self, prompts: Sequence[str]) -> Tensor:
        from foleypref.published.clip_tokens import clip_tokenizer

        return clip_tokenizer()(prompts)

    @cached_property
    def _clip(self) -> Any:
        return self._load_clip().to(self.device, self.feature_dtype)

    @cached_property
    def _sync(self) -> SynchformerVisual:
        network = self._load_sync().to(self.device, self.feature_dtype)
        return network.eval().requires_grad_(False)

    def _load_clip(self) -> Any:
        from foleypref.published.clip import load_clip  # transformers: seconds to import

        return load_clip(self.load_state("clip"))

    def _load_sync(self) -> SynchformerVisual:
        with torch.device("meta"):
            network = SynchformerVisual()
        network.load_state_dict(visual_weights(self.load_state("sync")), assign=True)
        return network
