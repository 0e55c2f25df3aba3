"""The networks of a Frieren model, read from its Lightning checkpoints at first use and written back alike.

A released checkpoint holds the flow network, the autoencoder and tables of a diffusion that nothing uses;
vocoder and CAVP have files of their own. A checkpoint does not say which of the three variants it is.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from foleypref.media.files import atomic_path
from foleypref.networks.cavp import CAVP, cavp_pixels, visual_weights
from foleypref.networks.frieren import RELEASED, Frieren
from foleypref.networks.frieren_vae import SCALE, FrierenVAE
from foleypref.published.conversion import write_safetensors
from foleypref.published.filling import Adapt, fill
from foleypref.published.hashes import file_hashes
from foleypref.published.mmaudio_audio import SIZES, MMAudioCodec, Posterior, build_vocoder
from foleypref.published.parts import PublishedParts, adapted, content_hashes, copy_for_training
from foleypref.published.places import MissingWeights, locate
from foleypref.published.reading import load_pickle, read_state
from foleypref.published.registry import files_for
from foleypref.published.sniff import TORCH_ZIP, check_format
from foleypref.published.weights import load_published
from foleypref.workspace.records import digest

MODELS = {"base": "frieren-noreflow", "reflow": "frieren-reflow", "distilled": "frieren-distilled"}
"""The registry's model name of each variant."""

SAMPLE_RATE = 16000  # Hz
NETWORK, VAE = ("model.diffusion_model.", "cond_stage_model."), "first_stage_model."
DIFFUSION_TABLES = ("betas", "alphas_cumprod", "sqrt_", "log_one_minus_alphas_cumprod", "posterior_")
OF_TRAINING: dict[str, Any] = {"callbacks": {}, "optimizer_states": [], "lr_schedulers": []}
"""Empty entries of an exported checkpoint, in place of the original's training state."""

VAE_FILE = "epoch=000032.ckpt"  # for users with tuned weights and no released checkpoint
_LOSS = "loss."  # the discriminator's tensors in that file


class Weights(NamedTuple):
    """A checkpoint's tensors by role: full names in `network`, names without their prefix in `vae`."""

    network: dict[str, Tensor]
    vae: dict[str, Tensor]
    unknown: list[str]


def by_role(state: Mapping[str, Tensor]) -> Weights:
    """Split a checkpoint's tensors by role, leaving out the diffusion's tables."""
    network = {name: value for name, value in state.items() if name.startswith(NETWORK)}
    vae = {name.removeprefix(VAE): value for name, value in state.items() if name.startswith(VAE)}
    unknown = [name for name in state if not name.startswith((*NETWORK, VAE, *DIFFUSION_TABLES))]
    return Weights(network, vae, unknown)


def build_network(weights: Weights, source: str) -> Frieren:
    """Return the trainable flow network in float32, with copies of its tensors; warn of unknown tensors.

    Raises ValueError, which counts the tensors that are missing or of another shape and names the first.
    """
    role, advice = f"Frieren's network, {source},", "give a released checkpoint or a tuned one"
    network = fill(empty_network, weights.network, role=role, advice=advice)
    _warn_of_unused(weights.unknown, source)
    copy_for_training(network, torch.float32)
    return network.requires_grad_(True)


def build_cavp(state: Mapping[str, Tensor], source: str) -> CAVP:
    """Return CAVP's picture encoder; warns and raises as `build_network` does."""
    weights = visual_weights(state)
    used = {name: weights[name] for name in empty_cavp().state_dict() if name in weights}
    cavp = fill(empty_cavp, used, role=f"CAVP, {source},", advice="give cavp_epoch66.ckpt")
    _warn_of_unused([name for name in weights if name not in used], source)
    return cavp


def lightning_layout(path: Path) -> dict[str, Any]:
    """Return a checkpoint's entries, those of `OF_TRAINING` emptied; just the state dict for bare weights."""
    if check_format(path) == TORCH_ZIP:
        whole = load_pickle(path, mmap=True)
        if isinstance(whole, Mapping) and isinstance(whole.get("state_dict"), Mapping):
            return {**whole, **{key: empty for key, empty in OF_TRAINING.items() if key in whole}}
    return {"state_dict": read_state(path)}


def empty_network() -> Frieren:
    """Return the released network on the meta device: keys and shapes without memory."""
    with torch.device("meta"):
        return Frieren(**RELEASED)


def empty_vae() -> FrierenVAE:
    """Return the autoencoder on the meta device."""
    with torch.device("meta"):
        return FrierenVAE()


def empty_cavp() -> CAVP:
    """Return CAVP's picture encoder on the meta device."""
    with torch.device("meta"):
        return CAVP()


def _warn_of_unused(names: list[str], source: str) -> None:
    if names:
        first = ", ".join(sorted({name.split(".")[0] for name in names})[:4])
        warnings.warn(f"{source}: {len(names)} tensors have no use here, left out: {first}", stacklevel=3)


class FrierenCodec(MMAudioCodec):
    """Mono waves (B, N) at 16 kHz <-> the flow's latents (B, N // 512, 20): the autoencoder's times 0.18215.

    Mel front end and vocoder are those of MMAudio at 16 kHz.
    """

    vae: FrierenVAE

    def encode_mel(self, mel: Tensor) -> Posterior:
        """Return mean and standard deviation of the flow's latents of log-mels (B, 80, T), T even."""
        mean, logvar = self.vae.encode(mel.to(self.vae.quant_conv.weight))
        return Posterior(SCALE * mean.transpose(1, 2), SCALE * (logvar / 2).exp().transpose(1, 2))

    def decode_mel(self, latents: Tensor) -> Tensor:
        """Return log-mels (B, 80, 2 L) of the flow's latents (B, L, 20)."""
        return self.vae.decode(latents.transpose(1, 2).to(self.vae.quant_conv.weight) / SCALE)


class FrierenParts(PublishedParts):
    """Network, codec and CAVP of one variant on one device; `weights` is a tuned network's file, or ""."""

    def __init__(self, variant: str, weights: str, folder: str, device: torch.device) -> None:
        files = zip(("network", "vocoder", "cavp"), files_for(MODELS[variant]), strict=True)
        super().__init__(dict(files), folder, device)
        self.variant = variant
        self._tuned = Path(weights).expanduser() if weights else None

    def load_network(self, dtype: torch.dtype, adapt: Adapt | None = None) -> Frieren:
        """Return the flow network, official or tuned, in `dtype`; `adapt` changes it before it is cast."""
        network = build_network(self._weights, str(self._network_source))
        return adapted(network, adapt).to(self.device, dtype)

    def network_hashes(self, adapter: str) -> str:
        """Hash every file that shapes a candidate's latents and sound."""
        network, vae = self._located(self._network_source), self._located(self._vae_source)
        return digest(*content_hashes([network, vae, self.path("vocoder")], adapter))

    def export_network(self, network: nn.Module, path: Path) -> None:
        """Write the tuned network: only it as .safetensors, else a whole checkpoint as released.

        A whole checkpoint has every tensor and entry of the one that the network was tuned from, in their
        order, but the state of that training is empty: optimisers, schedules and callbacks.
        """
        state = network.state_dict()
        tuned = {name: value.detach().cpu().float().contiguous() for name, value in state.items()}
        if path.suffix == ".safetensors":
            write_safetensors(path, tuned, {"format": "pt", "model": f"frieren-{self.variant}"})
            return
        original = self._tuned if self._tuned and self._weights.vae else self.path("network")
        checkpoint = lightning_layout(original)
        checkpoint["state_dict"] = {**checkpoint["state_dict"], **tuned}
        with atomic_path(path) as temporary:
            torch.save(checkpoint, temporary)

    @cached_property
    def codec(self) -> FrierenCodec:
        """Autoencoder and vocoder, in float32."""
        source, advice = self._vae_source, f"give a released checkpoint or {VAE_FILE}"
        state = load_published(source, self.folder, role=None if source == VAE_FILE else "Frieren")
        if source == VAE_FILE:
            state = {name: value for name, value in state.items() if not name.startswith(_LOSS)}
        else:
            state = by_role(state).vae
        vae = fill(empty_vae, state, role=f"Frieren's autoencoder, {source},", advice=advice)
        sizes = SIZES[SAMPLE_RATE]
        vocoder = build_vocoder(sizes, self.load_state("vocoder"))
        return FrierenCodec(sizes, vae, vocoder).eval().to(self.device)

    def cavp_hash(self) -> str:
        """Hash the file of CAVP."""
        return file_hashes(self.path("cavp")).sha256

    def cavp_features(self, frames: np.ndarray) -> Tensor:
        """Embed frames (T, 224, 224, 3) uint8, 4 per second, by CAVP: (T, 512), each of length 1."""
        return self.cavp.features(cavp_pixels(torch.from_numpy(frames).to(self.device)))

    @cached_property
    def cavp(self) -> CAVP:
        """CAVP's picture encoder, in float32."""
        return build_cavp(self.load_state("cavp"), self.files["cavp"].name).to(self.device)

    @property
    def _network_source(self) -> Path | str:
        """The tuned network's file, or the released one's name."""
        return self._tuned or self.files["network"].name

    @cached_property
    def _weights(self) -> Weights:
        return by_role(load_published(self._network_source, self.folder, role="Frieren"))

    @property
    def _vae_source(self) -> Path | str:
        """A tuned file that holds an autoencoder, the released checkpoint, or the autoencoder's own file."""
        if self._tuned and self._weights.vae:
            return self._tuned
        network = self.files["network"].name
        try:
            locate(network, self.folder)
        except MissingWeights as missing:
            try:
                locate(VAE_FILE, self.folder)
            except MissingWeights:
                raise missing from None
            return VAE_FILE
        return network

    def _located(self, source: Path | str) -> Path:
        return source if isinstance(source, Path) else locate(source, self.folder)
