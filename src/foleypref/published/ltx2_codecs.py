"""LTX-2's codecs between media and the flow's latents: diffusers' autoencoders with their latent statistics.

As in the pipeline, picture latents are normalised per channel, and sound latents per packed feature.
Letters: T frames, F latent frames, S latents per frame, C channels; B batch, N samples, L audio latents, D
features of each.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from foleypref.networks.mel import LogMelSpectrogram
from foleypref.networks.resample import HANN_FLOAT32, resample
from foleypref.published.ltx2_sizes import Sizes

N_FFT = 1024  # samples per mel frame in the training of the audio autoencoder
FLOOR = 1e-5  # of mel magnitudes


@torch.no_grad()
def encode_video(vae: Any, frames: np.ndarray) -> Tensor:
    """Encode frames (T, H, W, 3) uint8 to normalised latents (F, S, C), the posterior's mean."""
    pixels = torch.from_numpy(frames).to(vae.device).permute(3, 0, 1, 2)[None]  # (1, 3, T, H, W)
    latents: Tensor = vae.encode((pixels.float() / 127.5 - 1).to(vae.dtype)).latent_dist.mode().float()
    mean, std = _statistics(vae, (1, -1, 1, 1, 1))
    latents = (latents - mean) * vae.config.scaling_factor / std
    return latents[0].permute(1, 2, 3, 0).flatten(1, 2)


@torch.no_grad()
def decode_video(vae: Any, latents: Tensor, rows: int, columns: int) -> Tensor:
    """Decode normalised latents (F, S, C), S = rows · columns, to CPU frames (T, H, W, 3) uint8."""
    mean, std = _statistics(vae, (1, -1, 1, 1, 1))
    packed = latents.float().unflatten(1, (rows, columns)).permute(3, 0, 1, 2)[None]
    z = (packed * std / vae.config.scaling_factor + mean).to(vae.dtype)
    time = torch.zeros(1, device=z.device, dtype=z.dtype) if vae.config.timestep_conditioning else None
    pixels: Tensor = vae.decode(z, time, return_dict=False)[0][0].float()  # (3, T, H, W) in [-1, 1]
    return ((pixels + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 3, 0).cpu()


def mel_front(sizes: Sizes) -> LogMelSpectrogram:
    """Return the front end of the audio autoencoder: ln of mel magnitudes in centred frames."""
    return LogMelSpectrogram(
        sizes.audio_rate,
        N_FFT,
        sizes.audio_hop,
        sizes.mel_bins,
        log="ln",
        floor=FLOOR,
        eps=0.0,
        padding=N_FFT // 2,
        clip=False,
    )


@torch.no_grad()
def encode_audio(vae: Any, mel: LogMelSpectrogram, sizes: Sizes, waves: Tensor, num_latents: int) -> Tensor:
    """Encode mono waves (B, N) at the vocoder's rate to normalised latents (B, L, D), the posterior's mean.

    Both channels of the autoencoder get the same sound. It is causal: L latents are 4 L - 3 mel frames.
    """
    sound = resample(waves.float(), sizes.output_rate, sizes.audio_rate, HANN_FLOAT32)
    mels = mel(sound).transpose(1, 2)  # (B, frames, bins)
    frames = sizes.MEL_FACTOR * (num_latents - 1) + 1
    mels = F.pad(mels, (0, 0, 0, max(0, frames - mels.shape[1])), value=math.log(FLOOR))[:, :frames]
    stereo = mels[:, None].expand(-1, vae.config.in_channels, -1, -1)
    latents: Tensor = (
        vae.encode(stereo.to(vae.dtype)).latent_dist.mode().float()
    )  # (B, channels, L, bins / 4)
    mean, std = _statistics(vae, (1, 1, -1))
    return (latents.transpose(1, 2).flatten(2) - mean) / std


@torch.no_grad()
def decode_audio(vae: Any, vocoder: Any, latents: Tensor) -> Tensor:
    """Decode normalised latents (B, L, D) to waves (B, N) at the vocoder's rate, the mean of its channels."""
    mean, std = _statistics(vae, (1, 1, -1))
    packed = latents.float() * std + mean
    z = packed.unflatten(2, (vae.config.latent_channels, -1)).transpose(1, 2)
    mel = vae.decode(z.to(vae.dtype), return_dict=False)[0]
    waves: Tensor = vocoder(mel.to(vocoder.dtype)).float()
    return waves.mean(1).clamp(-1, 1)


def _statistics(vae: Any, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the latents' mean and standard deviation, which an autoencoder stores beside its weights."""
    return vae.latents_mean.float().reshape(shape), vae.latents_std.float().reshape(shape)
