"""Spectrograms and back: STFT magnitude, mel bands, and phase by fast Griffin-Lim (no learned vocoder).

Letters: B batch, N samples, T frames (one per hop), F bins, M mel bands.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex64, Float
from torch import Tensor, nn

from foleypref.networks.mel_basis import htk_basis

ROWS = 2  # sounds at once in Griffin-Lim, so that the working set stays in a CPU's cache


class Spectrogram(nn.Module):
    """Magnitude STFT with as many frames as hops: (B, N) -> (B, N // hop, n_fft // 2 + 1)."""

    window: Tensor

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def complex(self, wave: Float[Tensor, "B N"]) -> Complex64[Tensor, "B F N//{self.hop}+1"]:
        """Compute the centred complex STFT: (B, n_fft // 2 + 1, N // hop + 1)."""
        return torch.stft(wave, self.n_fft, self.hop, window=self.window, center=True, return_complex=True)

    def forward(self, wave: Float[Tensor, "B N"]) -> Float[Tensor, "B N//{self.hop} F"]:
        """Compute magnitudes (B, N // hop, F); the last, half-empty frame is dropped."""
        return self.complex(wave).abs()[..., : wave.shape[-1] // self.hop].transpose(1, 2)

    def invert(
        self, magnitude: Float[Tensor, "B T F"], num_iterations: int = 24, momentum: float = 0.99
    ) -> Float[Tensor, "B T*{self.hop}"]:
        """Fast Griffin-Lim (Perraudin 2013): magnitudes (B, T, F) -> wave (B, T·hop). Deterministic."""
        rows = ROWS if magnitude.device.type == "cpu" else max(1, len(magnitude))
        return torch.cat([self._invert(part, num_iterations, momentum) for part in magnitude.split(rows)])

    def _invert(self, magnitude: Tensor, num_iterations: int, momentum: float) -> Tensor:
        target = torch.cat([magnitude, magnitude[:, -1:]], dim=1).transpose(1, 2)  # (B, F, T + 1)
        length = magnitude.shape[1] * self.hop
        generator = torch.Generator().manual_seed(0)
        phase = torch.rand(target.shape[1:], generator=generator).to(target) * 2 * math.pi
        spectrum = torch.polar(target, phase.expand_as(target).contiguous())
        previous = torch.zeros_like(spectrum)
        for _ in range(num_iterations):
            rebuilt = self.complex(self._istft(spectrum, length))
            ahead = rebuilt + momentum * (rebuilt - previous)
            previous = rebuilt
            spectrum = target * ahead / ahead.abs().clamp(min=1e-8)
        return self._istft(spectrum, length)

    def _istft(self, spectrum: Tensor, length: int) -> Tensor:
        return torch.istft(spectrum, self.n_fft, self.hop, window=self.window, center=True, length=length)


class LogMel(nn.Module):
    """Log mel bands, roughly standardised: (B, N) -> (B, N // hop, num_mels)."""

    basis: Tensor

    def __init__(
        self, sample_rate: int = 16000, n_fft: int = 512, hop: int = 160, num_mels: int = 64
    ) -> None:
        super().__init__()
        self.spectrogram = Spectrogram(n_fft, hop)
        basis = htk_basis(sample_rate, n_fft, num_mels, 40.0, sample_rate / 2)
        self.register_buffer("basis", basis.T.float().contiguous(), persistent=False)  # (F, M)

    def forward(self, wave: Float[Tensor, "B N"]) -> Float[Tensor, "B N//{self.spectrogram.hop} M"]:
        """Compute log(mel + 1e-3), shifted and scaled to about unit range."""
        return (torch.log(self.spectrogram(wave) @ self.basis + 1e-3) + 3.0) / 3.0
