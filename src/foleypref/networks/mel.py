"""The log-mel front end of MMAudio and Frieren: Slaney filters on an uncentred STFT of reflect-padded sound.

Letters: B batch, N samples, T mel frames. Vocoders and autoencoders were trained on exactly these numbers.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Slaney's scale (Auditory Toolbox, 1998): linear below 1 kHz, 27 logarithmic steps for a factor of 6.4 above.
_LINEAR_HZ = 200.0 / 3
_KNEE_HZ = 1000.0
_KNEE_MEL = _KNEE_HZ / _LINEAR_HZ
_LOG_STEP = math.log(6.4) / 27


def slaney_basis(sample_rate: int, n_fft: int, num_mels: int, f_min: float, f_max: float) -> Tensor:
    """Return triangles of unit area over Hz on Slaney's mel scale: (num_mels, n_fft // 2 + 1), float64."""
    mels = torch.linspace(_to_mel(f_min), _to_mel(f_max), num_mels + 2, dtype=torch.float64)
    above = _KNEE_HZ * torch.exp(_LOG_STEP * (mels - _KNEE_MEL))
    edges = torch.where(mels < _KNEE_MEL, _LINEAR_HZ * mels, above)[:, None]
    bins = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.minimum(rise, fall).clamp(min=0) * 2 / (edges[2:] - edges[:-2])


def _to_mel(hz: float) -> float:
    return hz / _LINEAR_HZ if hz < _KNEE_HZ else _KNEE_MEL + math.log(hz / _KNEE_HZ) / _LOG_STEP


class LogMelSpectrogram(nn.Module):
    """log(mel) of mono sound: (B, N) -> (B, num_mels, N // hop).

    `log` is the logarithm, `floor` its smallest argument: silence is log(floor). `padding` samples are
    reflected at both ends, by default (n_fft - hop) / 2, which makes N // hop frames. `eps` is added under
    the root of the magnitude. `clip` clamps samples to [-1, 1]. Autocast is ignored: the work is done in the
    precision of the buffers.
    """

    basis: Tensor
    window: Tensor

    def __init__(
        self,
        sample_rate: int,
        n_fft: int,
        hop: int,
        num_mels: int,
        *,
        f_min: float = 0.0,
        f_max: float | None = None,
        log: Literal["log10", "ln"] = "log10",
        floor: float = 1e-5,
        eps: float = 1e-9,
        padding: int | None = None,
        clip: bool = True,
    ) -> None:
        super().__init__()
        self.n_fft, self.hop, self.log, self.floor, self.eps, self.clip = n_fft, hop, log, floor, eps, clip
        self.padding = (n_fft - hop) // 2 if padding is None else padding
        basis = slaney_basis(
            sample_rate, n_fft, num_mels, f_min=f_min, f_max=sample_rate / 2 if f_max is None else f_max
        )
        self.register_buffer("basis", basis.float(), persistent=False)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """Compute the log-mel of sound (B, N). Raises ValueError for other shapes and too short sound."""
        if wave.ndim != 2 or wave.shape[1] <= self.padding:
            raise ValueError(
                f"sound of shape {tuple(wave.shape)} has no mel frames: give (batch, more than "
                f"{self.padding} samples)"
            )
        wave = wave.to(self.basis)
        if self.clip:
            wave = wave.clamp(-1, 1)
        with torch.autocast(wave.device.type, enabled=False):
            # reflect padding of a 2-D tensor pads its last dimension, rows being channels
            wave = F.pad(wave, (self.padding, self.padding), mode="reflect")
            spectrum = torch.stft(
                wave, self.n_fft, self.hop, window=self.window, center=False, return_complex=True
            )
            magnitude = (spectrum.real.square() + spectrum.imag.square() + self.eps).sqrt()
            mel = (self.basis @ magnitude).clamp(min=self.floor)  # (B, num_mels, T)
        return mel.log10() if self.log == "log10" else mel.log()
