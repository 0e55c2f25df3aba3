"""The world's latent audio codec: log-magnitude frames to latents at 25 Hz and back to sound.

Letters: B batch, N samples, T spectrogram frames (at 100 Hz), F bins, M mel bands, L latent
frames (at 25 Hz), D 32.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foleypref.networks.mel_basis import htk_basis
from foleypref.networks.spectral import Spectrogram
from foleypref.networks.world_dit import zeroed

HOP = 160  # samples at 16 kHz: 100 frames a second
N_FFT = 512
FRAMES_PER_LATENT = 4
NUM_MELS = 80
FLOOR = 1e-3  # magnitude; about -75 dBFS for a steady tone


class _ResBlock(nn.Module):
    """A residual block without norm, which would remove the level and tie every frame to all others."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        last = zeroed(nn.Conv1d(width, width, 1))
        wide = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.body = nn.Sequential(nn.SiLU(), wide, nn.SiLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class WorldCodec(nn.Module):
    """Encoder to (B, L, D), decoder to log-magnitudes, Griffin-Lim to sound; latents are normalised."""

    mel: Tensor
    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, latent_dim: int = 32, width: int = 256) -> None:
        super().__init__()
        bins = N_FFT // 2 + 1
        self.spectrogram = Spectrogram(N_FFT, HOP)
        basis = htk_basis(16000, N_FFT, NUM_MELS, 0.0, 8000.0).T.float().contiguous()  # (F, M)
        self.register_buffer("mel", basis, persistent=False)
        self.register_buffer("latent_mean", torch.zeros(latent_dim))
        self.register_buffer("latent_std", torch.ones(latent_dim))
        self.encoder = nn.Sequential(
            nn.Conv1d(NUM_MELS * FRAMES_PER_LATENT, width, 1),
            _ResBlock(width, 1),
            _ResBlock(width, 2),
            nn.SiLU(),
            nn.Conv1d(width, 2 * latent_dim, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv1d(latent_dim, width, 3, padding=1),
            _ResBlock(width, 1),
            _ResBlock(width, 2),
            _ResBlock(width, 1),
            nn.SiLU(),
            nn.Conv1d(width, bins * FRAMES_PER_LATENT, 1),
        )

    def log_magnitude(self, wave: Float[Tensor, "B N"]) -> Float[Tensor, "B T F"]:
        """Compute log(magnitude + floor) of waves: (B, N) -> (B, T, F)."""
        return torch.log(self.spectrogram(wave) + FLOOR)

    def log_bands(self, log_magnitude: Float[Tensor, "B T F"]) -> Float[Tensor, "B T M"]:
        """Compute log(mel magnitude + floor) from log-magnitudes: (B, T, F) -> (B, T, M)."""
        magnitude = (log_magnitude.clamp(max=6.0).exp() - FLOOR).clamp(min=0)
        return torch.log(magnitude @ self.mel + FLOOR)

    def posterior(self, wave: Float[Tensor, "B N"]) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B L D"]]:
        """Return mean and log-variance of the raw latent, each (B, L, D)."""
        mel = self.log_bands(self.log_magnitude(wave))
        stacked = ((mel + 3.0) / 3.0).unflatten(1, (-1, FRAMES_PER_LATENT)).flatten(2)  # (B, L, 4M)
        mean, log_var = self.encoder(stacked.transpose(1, 2)).transpose(1, 2).chunk(2, dim=-1)
        return mean, log_var.clamp(-12, 4)

    def magnitudes(self, raw: Float[Tensor, "B L D"]) -> Float[Tensor, "B 4*L F"]:
        """Decode raw latents (B, L, D) to log-magnitudes (B, T, F)."""
        frames = self.decoder(raw.transpose(1, 2)).transpose(1, 2)  # (B, L, 4F)
        return frames.unflatten(2, (FRAMES_PER_LATENT, -1)).flatten(1, 2) * 3.0 - 3.0

    def encode(self, wave: Float[Tensor, "B N"]) -> Float[Tensor, "B L D"]:
        """Encode waves (B, N) to the posterior's mean, normalised (B, L, D)."""
        return (self.posterior(wave)[0] - self.latent_mean) / self.latent_std

    def decode(self, latent: Float[Tensor, "B L D"]) -> Float[Tensor, "B N"]:
        """Decode normalised latents (B, L, D) to waves (B, N) in [-1, 1]."""
        log_magnitude = self.magnitudes(latent * self.latent_std + self.latent_mean)
        magnitude = (log_magnitude.clamp(max=6.0).exp() - FLOOR).clamp(min=0)
        return self.spectrogram.invert(magnitude).clamp(-1, 1)
