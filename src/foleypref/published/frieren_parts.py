"""What a Frieren model is made of: read from its Lightning checkpoints when first wanted, written back alike.

A released checkpoint holds the flow network, the autoencoder and tables of a diffusion that nothing uses;
vocoder and CAVP are files of their own. Nothing in a checkpoint says which of the three variants it is.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

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
from foleypref.published.places import MissingWeights
from foleypref.published.reading import load_pickle, read_state
from foleypref.published.registry import files_for
from foleypref.published.sniff import TORCH_ZIP, check_format
from foleypref.published.weights import load_published, locate
from foleypref.workspace.records import digest

MODELS = {"base": "frieren-noreflow", "reflow": "frieren-reflow", "distilled": "frieren-distilled"}
"""Variant -> the registry's name of the model."""

SAMPLE_RATE = 16000  # Hz
NETWORK, VAE = ("model.diffusion_model.", "cond_stage_model."), "first_stage_model."
DIFFUSION_TABLES = ("betas", "alphas_cumprod", "sqrt_", "log_one_minus_alphas_cumprod", "posterior_")
OF_TRAINING: dict[str, Any] = {"callbacks": {}, "optimizer_states": [], "lr_schedulers": []}
"""What an exported checkpoint has in place of the state that the original's training was left in."""

VAE_FILE = "epoch=000032.ckpt"  # for who has tuned weights and no released checkpoint
_LOSS = "loss."  # the discriminator's tensors in that file


class Weights(NamedTuple):
    """A checkpoint by role: the network's tensors under their full names, the autoencoder's under its own."""

    network: dict[str, Tensor]
    vae: dict[str, Tensor]
    unknown: list[str]


def by_role(state: Mapping[str, Tensor]) -> Weights:
    """Split a checkpoint's tensors, the diffusion's tables left out."""
    network = {name: value for name, value in state.items() if name.startswith(NETWORK)}
    vae = {name.removeprefix(VAE): value for name, value in state.items() if name.startswith(VAE)}
    unknown = [name for name in state if not name.startswith((*NETWORK, VAE, *DIFFUSION_TABLES))]
    return Weights(network, vae, unknown)


def build_network(weights: Weights, source: str) -> Frieren:
    """The flow network in float32, to be trained, around copies of its tensors; a warning names unknown ones.

    Raises ValueError that counts what is missing or of another shape and names the first.
    """
    network, advice = empty_network(), "give a released checkpoint or a tuned one"
    fill(network, weights.network, (), f"Frieren's network, {source},", advice)
    _warn_of(weights.unknown, source)
    with torch.no_grad():  # the tensors are the file's, mapped, and training writes to these
        for parameter in network.parameters():
            parameter.data = parameter.data.clone()
    return network.requires_grad_(True)


def build_cavp(state: Mapping[str, Tensor], source: str) -> CAVP:
    """The picture's side of CAVP; warns and raises as `build_network`."""
    cavp, weights = empty_cavp(), visual_weights(state)
    found = {name: weights[name] for name in cavp.state_dict() if name in weights}
    fill(cavp, found, (), f"CAVP, {source},", "give cavp_epoch66.ckpt")
    _warn_of([name for name in weights if name not in found], source)
    return cavp


def lightning_layout(path: Path) -> dict[str, Any]:
    """A checkpoint's entries, those of `OF_TRAINING` empty; of bare weights the state dict alone."""
    if check_format(path) == TORCH_ZIP:
        whole = load_pickle(path, mmap=True)
        if isinstance(whole, Mapping) and isinstance(whole.get("state_dict"), Mapping):
            return {**whole, **{key: empty for key, empty in OF_TRAINING.items() if key in whole}}
    return {"state_dict": read_state(path)}


def empty_network() -> Frieren:
    """The released network on the meta device: keys and shapes without memory."""
    with torch.device("meta"):
        return Frieren(**RELEASED)


def empty_vae() -> FrierenVAE:
    """The autoencoder on the meta device."""
    with torch.device("meta"):
        return FrierenVAE()


def empty_cavp() -> CAVP:
    """The picture's side of CAVP on the meta device."""
    with torch.device("meta"):
        return CAVP()


def _warn_of(names: list[str], source: str) -> None:
    if names:
        first = ", ".join(sorted({name.split(".")[0] for name in names})[:4])
        warnings.warn(f"{source}: {len(names)} tensors have no use here and were left: {first}", stacklevel=3)


class FrierenCodec(MMAudioCodec):
    """Mono waves (B, N) at 16 kHz <-> the flow's latents (B, N // 512, 20), 0.18215 of the autoencoder's.

    Mel front end and vocoder are those of MMAudio at 16 kHz.
    """

    def encode_mel(self, mel: Tensor) -> Posterior:
        """Log-mels (B, 80, T), T even -> mean and standard deviation of the flow's latents."""
        vae = cast(FrierenVAE, self.vae)
        mean, logvar = vae.encode(mel.to(vae.quant_conv.weight))
        return Posterior(SCALE * mean.transpose(1, 2), SCALE * (logvar / 2).exp().transpose(1, 2))

    def decode_mel(self, latents: Tensor) -> Tensor:
        """The flow's latents (B, L, 20) -> log-mels (B, 80, 2 L)."""
        vae = cast(FrierenVAE, self.vae)
        return vae.decode(latents.transpose(1, 2).to(vae.quant_conv.weight) / SCALE)


class Parts:
    """Network, codec and CAVP of one variant on one device; `weights` is a tuned network's file, or ""."""

    def __init__(self, variant: str, weights: str, folder: str, device: torch.device) -> None:
        self.variant, self.folder, self.device = variant, folder or None, device
        network, vocoder, cavp = files_for(MODELS[variant])
        self._own = Path(weights).expanduser() if weights else None
        self._files = {"network": network.name, "vocoder": vocoder.name, "cavp": cavp.name}

    # -- the network ---------------------------------------------------------------------------------------

    def load_network(self, dtype: torch.dtype, adapt: Adapt | None = None) -> Frieren:
        """Return the flow network, official or tuned, in `dtype`; `adapt` changes it before it is cast."""
        network = build_network(self._weights, str(self._own or self._files["network"]))
        if adapt is not None:
            network = cast(Frieren, adapt(network))
        return network.to(self.device, dtype)

    def network_hashes(self, adapter: str) -> str:
        """Of everything that shapes a candidate's latents and sound."""
        sources = [self._own or self._files["network"], self._vae_source, self._files["vocoder"]]
        if adapter:
            sources.append(Path(adapter).expanduser() / "adapter_model.safetensors")
        paths = [self._path(source) for source in sources]
        for path in paths:
            if not path.is_file():
                raise ValueError(f"{path} does not exist; give the file that training wrote")
        return digest(*(file_hashes(path).sha256 for path in paths))

    def export_network(self, network: nn.Module, path: Path) -> None:
        """Write the tuned network: .safetensors holds it alone, any other file is a checkpoint as released.

        That has every tensor and entry of the checkpoint it was tuned from, in their order, but for what that
        one's training was left in: optimisers, schedules and callbacks are empty.
        """
        state = network.state_dict()
        tuned = {name: value.detach().cpu().float().contiguous() for name, value in state.items()}
        if path.suffix == ".safetensors":
            write_safetensors(path, tuned, {"format": "pt", "model": f"frieren-{self.variant}"})
            return
        own = self._own if self._weights.vae else None
        whole = lightning_layout(self._path(own or self._files["network"]))
        whole["state_dict"] = {**whole["state_dict"], **tuned}
        with atomic_path(path) as temporary:
            torch.save(whole, temporary)

    # -- sound ---------------------------------------------------------------------------------------------

    @cached_property
    def codec(self) -> FrierenCodec:
        """The autoencoder and the vocoder, in float32."""
        state, advice = self._vae_state(), f"give a released checkpoint or {VAE_FILE}"
        vae = fill(empty_vae(), state, (), f"Frieren's autoencoder, {self._vae_source},", advice)
        sizes = SIZES[SAMPLE_RATE]
        vocoder = build_vocoder(sizes, load_published(self._files["vocoder"], self.folder))
        return FrierenCodec(sizes, vae, vocoder).eval().to(self.device)

    @property
    def vocoder_rows(self) -> int:
        """Clips through the vocoder at once: it wants far more memory a clip than the flow."""
        return 1 if self.device.type == "cpu" else 8

    # -- conditions ----------------------------------------------------------------------------------------

    def cavp_hash(self) -> str:
        """Of the file that sees."""
        return file_hashes(self._path(self._files["cavp"])).sha256

    def cavp_features(self, frames: np.ndarray) -> Tensor:
        """Frames (T, 224, 224, 3) uint8, 4 a second -> (T, 512), each of length 1."""
        return self.cavp.features(cavp_pixels(torch.from_numpy(frames).to(self.device)))

    @cached_property
    def cavp(self) -> CAVP:
        """The network that sees, in float32."""
        name = self._files["cavp"]
        return build_cavp(load_published(name, self.folder), name).to(self.device)

    # -- files ---------------------------------------------------------------------------------------------

    @cached_property
    def _weights(self) -> Weights:
        source = self._own or self._files["network"]
        return by_role(load_published(source, self.folder, role="Frieren"))

    @property
    def _vae_source(self) -> Path | str:
        """A tuned file that holds an autoencoder, the released checkpoint, or the autoencoder's own file."""
        if self._own and self._weights.vae:
            return self._own
        network = self._files["network"]
        try:
            locate(network, self.folder)
        except MissingWeights as missing:
            try:
                locate(VAE_FILE, self.folder)
            except MissingWeights:
                raise missing from None
            return VAE_FILE
        return network

    def _vae_state(self) -> dict[str, Tensor]:
        source = self._vae_source
        if source == VAE_FILE:
            state = load_published(VAE_FILE, self.folder)
            return {name: value for name, value in state.items() if not name.startswith(_LOSS)}
        return by_role(load_published(source, self.folder, role="Frieren")).vae

    def _path(self, source: Path | str) -> Path:
        return source if isinstance(source, Path) else locate(source, self.folder)
