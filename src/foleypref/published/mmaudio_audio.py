"""MMAudio's codec: waves to latents and back, by the official VAE and BigVGAN at 16 or 44.1 kHz.

The layers are diffusers'; this file has the sizes, the conversion of official state dicts (arXiv 2412.15322)
and the codec. Letters: B batch, N samples, T mel frames, L = T / 2 latent frames, C latent channels.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from foleypref.networks.mel import LogMelSpectrogram
from foleypref.networks.vocoder_activation import slice_activations

_EPS = 1e-4  # of the VAE's normalisation
_WEIGHT_NORM = {  # torch's two spellings of (magnitude, direction)
    ".weight_v": ".weight_g",
    ".parametrizations.weight.original1": ".parametrizations.weight.original0",
}


@dataclass(frozen=True)
class AudioSizes:
    """Sizes of mel front end, VAE and vocoder at one rate; the defaults hold for both rates.

    `tanh`: the vocoder is BigVGAN v1, whose last layer has a bias and a tanh; v2 has neither and clamps.
    """

    sample_rate: int  # Hz
    n_fft: int
    hop: int  # samples per mel frame; a latent frame is two mel frames
    num_mels: int
    log: Literal["log10", "ln"]
    latent_dim: int
    hidden_dim: int
    upsample_rates: tuple[int, ...]
    tanh: bool
    f_max: float  # Hz
    vocoder_dim: int = 1536


SIZES = {
    16000: AudioSizes(
        sample_rate=16000, n_fft=1024, hop=256, num_mels=80, log="log10", f_max=8000.0,
        latent_dim=20, hidden_dim=384, upsample_rates=(4, 4, 2, 2, 2, 2), tanh=True,
    ),
    44100: AudioSizes(
        sample_rate=44100, n_fft=2048, hop=512, num_mels=128, log="ln", f_max=22050.0,
        latent_dim=40, hidden_dim=512, upsample_rates=(8, 4, 2, 2, 2, 2), tanh=False,
    ),
}  # fmt: skip


_MULTIPLIERS, _BLOCKS_PER_LEVEL = (1, 2, 4), 2  # multipliers of `hidden_dim`; the same at both rates


class Posterior(NamedTuple):
    """The VAE's Gaussian over latents before MMAudio's normalisation, each (B, L, C)."""

    mean: Tensor
    std: Tensor


class MMAudioCodec(nn.Module):
    """Mono waves (B, N) <-> latents (B, L, C), frozen, L = N // (2·hop); latents are not normalised."""

    def __init__(self, sizes: AudioSizes, vae: nn.Module, vocoder: nn.Module) -> None:
        super().__init__()
        self.sizes = sizes
        self.mel = LogMelSpectrogram(
            sizes.sample_rate, sizes.n_fft, sizes.hop, sizes.num_mels, f_max=sizes.f_max, log=sizes.log
        )
        self.vae, self.vocoder = vae, vocoder

    def encode_mean_std(self, wave: Tensor) -> Posterior:
        """Return the posterior of waves (B, N) in [-1, 1]."""
        return self.encode_mel(self.mel(wave))

    def encode_mel(self, mel: Tensor) -> Posterior:
        """Return the posterior of log-mels (B, num_mels, T)."""
        vae: Any = self.vae
        mean, logvar = vae.encode(mel.to(vae.data_mean)).transpose(1, 2).chunk(2, dim=-1)  # (B, L, C)
        return Posterior(mean, torch.exp(logvar.clamp(-30, 20) / 2))

    def encode(self, wave: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Encode waves (B, N) to latents (B, L, C): the posterior's mean, or a draw by `generator`."""
        mean, std = self.encode_mean_std(wave)
        if generator is None:
            return mean
        noise = torch.randn(mean.shape, generator=generator, device=generator.device)
        return mean + std * noise.to(mean)

    def decode_mel(self, latents: Tensor) -> Tensor:
        """Decode latents (B, L, C) to log-mels (B, num_mels, 2L). Raises ValueError for any other layout."""
        if latents.ndim != 3 or latents.shape[-1] != self.sizes.latent_dim:
            expected = f"(batch, frames, {self.sizes.latent_dim})"
            raise ValueError(f"MMAudio latents have shape {tuple(latents.shape)}: give {expected}")
        vae: Any = self.vae
        return vae.decode(latents.transpose(1, 2).to(vae.data_mean))

    def vocode(self, mel: Tensor) -> Tensor:
        """Synthesise waves (B, T·hop) in [-1, 1] from log-mels (B, num_mels, T)."""
        vocoder: Any = self.vocoder
        return vocoder(mel.to(vocoder.conv_pre.weight), return_dict=False)[0][:, 0]

    def decode(self, latents: Tensor, rows_at_once: int | None = None) -> Tensor:
        """Decode latents (B, L, C) to waves (B, L·2·hop); the vocoder's memory grows with `rows_at_once`."""
        if rows_at_once is not None and rows_at_once < 1:
            raise ValueError(
                f"rows_at_once is {rows_at_once}: decode at least one row at once, or None for all"
            )
        rows = latents.split(rows_at_once or max(1, len(latents)))
        return torch.cat([self.vocode(self.decode_mel(part)) for part in rows])


def build_codec(
    sample_rate: int, vae_state: Mapping[str, Any], vocoder_state: Mapping[str, Any]
) -> MMAudioCodec:
    """Build a codec from official state dicts: v1-16 with best_netG, or v1-44 with BigVGAN v2 44 kHz.

    Raises ValueError for another rate and for weights that do not fit.
    """
    if sample_rate not in SIZES:
        raise ValueError(f"MMAudio has no codec at {sample_rate} Hz: take one of {sorted(SIZES)} Hz")
    sizes = SIZES[sample_rate]
    return MMAudioCodec(sizes, build_vae(sizes, vae_state), build_vocoder(sizes, vocoder_state)).eval()


def build_vae(sizes: AudioSizes, state: Mapping[str, Any]) -> nn.Module:
    """Build the mel VAE in float32 from an official state dict, whose convolutions are normalised here.

    `.encode(mel (B, num_mels, T))` gives (B, 2·C, L), mean before log-variance; `.decode(latents (B, C, L))`
    gives the mel. Raises ValueError, which names the keys that are missing, unexpected or of another shape.
    """
    vae, name = empty_vae(sizes), f"MMAudio's {sizes.sample_rate} Hz VAE"
    _check_state(vae, state, name)
    return _fill(vae, normalise_convolutions(state))


def build_vocoder(sizes: AudioSizes, state: Mapping[str, Any]) -> nn.Module:
    """Build BigVGAN in float32 from an official state dict, bare or under its file's `generator` entry.

    Weight norm may be spelled `weight_g`/`weight_v` or `parametrizations.weight.original0/1`, or be folded
    already. A folded float32 state is not copied: the module shares its memory. Raises ValueError as
    `build_vae` does.
    """
    state = state.get("generator", state)
    if not isinstance(state, Mapping):
        raise ValueError(f"the entry 'generator' holds {type(state).__name__}: give BigVGAN's state dict")
    vocoder, name = empty_vocoder(sizes), f"the {sizes.sample_rate} Hz BigVGAN"
    folded = fold_weight_norm(state)
    _check_state(vocoder, folded, name)
    return _fill(vocoder, folded)


def normalise_convolutions(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the VAE's weights to compute with: w / (1e-4 + rms of its output channel) / sqrt(fan_in).

    `build_vae` does this exactly once: because of the 1e-4, a second time would change the weights.
    """
    ready = {}
    for key, value in state.items():
        if key.endswith(".weight"):
            value = value.float()
            root = math.sqrt(value[0].numel())
            norm = torch.linalg.vector_norm(value, dim=(1, 2), keepdim=True)
            value = value / ((_EPS + norm / root) * root)
        ready[key] = value
    return ready


def fold_weight_norm(state: Mapping[str, Any]) -> dict[str, Any]:
    """Replace weight-normed pairs by weights g·v / |v|, with the norm over all dimensions but the first."""
    folded = dict(state)
    for key in state:
        ending = next((end for end in _WEIGHT_NORM if key.endswith(end)), None)
        if ending is None:
            continue
        layer = key.removesuffix(ending)
        g, v = state.get(layer + _WEIGHT_NORM[ending]), state[key]
        if not isinstance(g, Tensor) or not isinstance(v, Tensor):
            continue  # `_check_state` will name it
        if g.shape != (len(v), *[1] * (v.ndim - 1)):
            raise ValueError(f"{layer} has weight norm of shape {tuple(g.shape)} for {tuple(v.shape)}")
        del folded[key], folded[layer + _WEIGHT_NORM[ending]]
        norm = torch.linalg.vector_norm(v.float(), dim=tuple(range(1, v.ndim)), keepdim=True)
        folded[f"{layer}.weight"] = v.float() * (g.float() / norm)
    return folded


def empty_vae(sizes: AudioSizes) -> nn.Module:
    """Return the VAE on the meta device: keys and shapes without memory."""
    _diffusers()
    # MMAudioVAE without its mel front end, which has no log10 and cannot be built on the meta device after
    # LTX-2 was trained in the same process (linspace between tensors)
    part = importlib.import_module("diffusers.models.autoencoders.autoencoder_mmaudio")
    with torch.device("meta"):
        widths = sizes.num_mels, sizes.latent_dim, sizes.hidden_dim
        vae = part.MMAudioAutoencoder(*widths, _MULTIPLIERS, _BLOCKS_PER_LEVEL)
    return vae.eval().requires_grad_(False)


def empty_vocoder(sizes: AudioSizes) -> nn.Module:
    """Return the vocoder on the meta device: keys and shapes without memory."""
    with torch.device("meta"):
        vocoder = _diffusers().MMAudioVocoder(
            num_mels=sizes.num_mels,
            upsample_initial_channel=sizes.vocoder_dim,
            upsample_rates=sizes.upsample_rates,
            upsample_kernel_sizes=tuple(2 * rate for rate in sizes.upsample_rates),
        )
        if sizes.tanh:
            vocoder.conv_post = TanhConv(vocoder.conv_post.in_channels, 1, 7, padding=3)
    slice_activations(vocoder)
    return vocoder.eval().requires_grad_(False)


class TanhConv(nn.Conv1d):
    """BigVGAN v1's last layer with its tanh inside; the clamp that v2's code adds then changes nothing."""

    def forward(self, input: Tensor) -> Tensor:
        """Return tanh of the convolution."""
        return torch.tanh(super().forward(input))


def _check_state(module: nn.Module, state: Mapping[str, Any], name: str) -> None:
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    given = {key: tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__ for key, v in state.items()}
    other = [f"{k} {given[k]} for {shape}" for k, shape in expected.items() if given.get(k, shape) != shape]
    problems = {
        "missing": [key for key in expected if key not in given],
        "unexpected": [key for key in given if key not in expected],
        "of another shape": other,
    }
    if any(problems.values()):
        parts = [f"{len(keys)} {problem}: {_some(keys)}" for problem, keys in problems.items() if keys]
        raise ValueError(f"these weights are not {name}: {'; '.join(parts)}. Give the official file, whole.")


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:4]) + (", …" if len(keys) > 4 else "")


def _fill(module: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    # assign: the tensors become the parameters, so a real network is in memory once
    module.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    return module.requires_grad_(False)


def _diffusers() -> Any:
    try:
        return importlib.import_module("diffusers")  # not at the top: it takes seconds
    except ImportError as error:
        advice = "pip install 'foleypref[mmaudio]' (or [frieren])"
        raise ValueError(f"autoencoders and vocoders need diffusers ({error}): {advice}") from error
