"""What an MMAudio model is made of, loaded when first wanted and shared by all views of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from foleypref.media.files import atomic_path
from foleypref.networks.mmaudio import MMAudio
from foleypref.networks.mmaudio_sizes import VARIANTS
from foleypref.networks.synchformer_visual import SynchformerVisual, sync_pixels, visual_weights
from foleypref.published.conversion import write_safetensors
from foleypref.published.filling import Adapt
from foleypref.published.hashes import file_hashes
from foleypref.published.mmaudio_audio import MMAudioCodec, build_codec
from foleypref.published.registry import files_for
from foleypref.published.weight_file import WeightFile
from foleypref.published.weights import load_published, locate
from foleypref.workspace.records import digest

CLIP_FRAMES_AT_ONCE = 16


@dataclass(frozen=True)
class LatentStatistics:
    """Mean and standard deviation of the codec's latents, (1, 1, dim) each, float32."""

    mean: Tensor
    std: Tensor

    def normalise(self, latents: Tensor) -> Tensor:
        """The codec's latents (B, L, dim) to the network's."""
        return (latents - self.mean) / self.std

    def unnormalise(self, latents: Tensor) -> Tensor:
        """The network's latents (B, L, dim) to the codec's."""
        return latents * self.std + self.mean


def sample_rate_of(variant: str) -> int:
    """Hz of a variant's sound, by its name."""
    return 16000 if variant.endswith("16k") else 44100


class Parts:
    """Network, codec, CLIP and Synchformer of one variant on one device."""

    statistics: LatentStatistics
    feature_dims: tuple[int, int, int]  # of clip, sync and text

    def __init__(
        self, variant: str, folder: str, device: torch.device, feature_dtype: torch.dtype = torch.float32
    ) -> None:
        self.variant, self.folder, self.device = variant, folder or None, device
        self.feature_dtype = feature_dtype  # of CLIP and Synchformer
        network, vae, vocoder, clip, sync = files_for(f"mmaudio-{variant}")
        self._files: dict[str, WeightFile] = {
            "network": network, "vae": vae, "vocoder": vocoder, "clip": clip, "sync": sync
        }  # fmt: skip

    # -- the network ---------------------------------------------------------------------------------------

    def load_network(self, weights: str, dtype: torch.dtype, adapt: Adapt | None = None) -> MMAudio:
        """Return the flow network, official or tuned, changed by `adapt`; frozen statistics stay float32."""
        entry = self._files["network"]
        if weights:
            state = load_published(Path(weights), role=entry.role)
        else:
            state = load_published(entry.name, self.folder)
        with torch.device("meta"):
            network = MMAudio(**VARIANTS[self.variant.replace("-", "_")])
        try:
            network.load_state_dict(state, assign=True)
        except RuntimeError as error:
            last = str(error).strip().splitlines()[-1].strip()
            raise ValueError(f"{weights or entry.name} does not fit {entry.role}: {last}") from None
        with torch.no_grad():  # the file stays mapped read-only, and training writes to these
            for tensor in (*network.parameters(), *network.buffers()):
                tensor.data = tensor.data.to(torch.float32, copy=True)
        network.requires_grad_(True)
        mean, std = (network.get_buffer(name).to(self.device) for name in ("latent_mean", "latent_std"))
        if not (mean.isfinite().all() and std.isfinite().all()):
            raise ValueError(f"{weights or entry.name} has no latent statistics; give a released checkpoint")
        self.statistics = LatentStatistics(mean, std)
        dims = (network.empty_clip_feat, network.empty_sync_feat, network.empty_string_feat)
        self.feature_dims = cast(tuple[int, int, int], tuple(value.shape[-1] for value in dims))
        if adapt is not None:
            network = cast(MMAudio, adapt(network))
        return network.to(self.device, dtype)

    def network_hashes(self, weights: str, adapter: str) -> str:
        """Of everything that shapes a candidate's latents and sound."""
        network = Path(weights).expanduser() if weights else self._path("network")
        paths = [network, self._path("vae"), self._path("vocoder")]
        if adapter:
            paths.append(Path(adapter).expanduser() / "adapter_model.safetensors")
        for path in paths:
            if not path.is_file():
                raise ValueError(f"{path} does not exist; give the file that training wrote")
        return digest(*(file_hashes(path).sha256 for path in paths))

    def export_network(self, network: nn.Module, path: Path) -> None:
        """Write a state dict with the official keys: .safetensors, or a .pth that upstream loads."""
        state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
        state["latent_mean"], state["latent_std"] = self.statistics.mean.cpu(), self.statistics.std.cpu()
        if path.suffix == ".safetensors":
            write_safetensors(path, state, {"format": "pt", "model": f"mmaudio-{self.variant}"})
            return
        with atomic_path(path) as temporary:
            torch.save(state, temporary)

    # -- sound ---------------------------------------------------------------------------------------------

    @cached_property
    def codec(self) -> MMAudioCodec:
        """The VAE and the vocoder, in float32."""
        vae, vocoder = (load_published(self._files[name].name, self.folder) for name in ("vae", "vocoder"))
        return build_codec(sample_rate_of(self.variant), vae, vocoder).to(self.device)

    @property
    def vocoder_rows(self) -> int:
        """Clips through the vocoder at once: it wants far more memory a clip than the flow."""
        return 1 if self.device.type == "cpu" else 8

    # -- conditions ----------------------------------------------------------------------------------------

    def encoder_hash(self) -> str:
        """Of CLIP and Synchformer."""
        return digest(*(file_hashes(self._path(name)).sha256 for name in ("clip", "sync")))

    def clip_vectors(self, frames: np.ndarray) -> Tensor:
        """Frames (C, 384, 384, 3) uint8 -> (C, 1024), each of length 1."""
        from foleypref.published.clip import clip_pixels

        pixels = torch.from_numpy(frames).to(self.device).split(CLIP_FRAMES_AT_ONCE)
        dtype = self.feature_dtype
        return torch.cat([self._clip.encode_image(clip_pixels(part).to(dtype)) for part in pixels]).float()

    def text_states(self, prompts: Sequence[str]) -> Tensor:
        """Prompts -> (B, 77, 1024), each token's state of length 1."""
        return cast(Tensor, self._clip.encode_text(self._ids(prompts).to(self.device)).float())

    def sync_tokens(self, frames: np.ndarray) -> Tensor:
        """Frames (25 a second, 224, 224, 3) uint8 -> (S, 768)."""
        video = sync_pixels(torch.from_numpy(frames).to(self.device)).to(self.feature_dtype)
        return cast(Tensor, self._sync(video[None])[0].float())

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

        return load_clip(load_published(self._files["clip"].name, self.folder))

    def _load_sync(self) -> SynchformerVisual:
        with torch.device("meta"):
            network = SynchformerVisual()
        weights = visual_weights(load_published(self._files["sync"].name, self.folder))
        network.load_state_dict(weights, assign=True)
        return network

    def _path(self, name: str) -> Path:
        return locate(self._files[name].name, self.folder)
