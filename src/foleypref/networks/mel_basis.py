"""Mel filter banks: triangles on the scales of Slaney, HTK and Kaldi, in the precision of each original.

The logarithm amplifies the rounding of quiet bands, so networks need the bank that they were trained with:
`kaldi_basis_float32` and `htk_basis_float32` round as torchaudio does, by up to 1e-5 of a band's width.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

# Slaney's scale (Auditory Toolbox, 1998): linear below 1 kHz, 27 logarithmic steps for a factor of 6.4 above.
_LINEAR_HZ = 200.0 / 3
_KNEE_HZ = 1000.0
_KNEE_MEL = _KNEE_HZ / _LINEAR_HZ
_LOG_STEP = math.log(6.4) / 27


def triangles(bins: Tensor, edges: Tensor) -> Tensor:
    """Return triangles of height 1 over `bins` (F,), each between three of `edges` (M + 2,): (M, F)."""
    edges = edges[:, None]
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.minimum(rise, fall).clamp(min=0)


def _bins(sample_rate: int, n_fft: int) -> Tensor:
    return torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)


def slaney_basis(sample_rate: int, n_fft: int, num_mels: int, f_min: float, f_max: float) -> Tensor:
    """Return triangles of unit area over Hz on Slaney's mel scale: (num_mels, n_fft // 2 + 1), float64."""
    mels = torch.linspace(_to_slaney(f_min), _to_slaney(f_max), num_mels + 2, dtype=torch.float64)
    above = _KNEE_HZ * torch.exp(_LOG_STEP * (mels - _KNEE_MEL))
    edges = torch.where(mels < _KNEE_MEL, _LINEAR_HZ * mels, above)
    return triangles(_bins(sample_rate, n_fft), edges) * 2 / (edges[2:] - edges[:-2])[:, None]


def _to_slaney(hz: float) -> float:
    return hz / _LINEAR_HZ if hz < _KNEE_HZ else _KNEE_MEL + math.log(hz / _KNEE_HZ) / _LOG_STEP


def htk_basis(sample_rate: int, n_fft: int, num_mels: int, f_min: float, f_max: float) -> Tensor:
    """Return triangles over Hz on the scale 2595 log10(1 + f / 700): (num_mels, n_fft // 2 + 1), float64."""
    low, high = (2595 * math.log10(1 + hz / 700) for hz in (f_min, f_max))
    mels = torch.linspace(low, high, num_mels + 2, dtype=torch.float64)
    return triangles(_bins(sample_rate, n_fft), 700 * (10 ** (mels / 2595) - 1))


def htk_basis_float32(sample_rate: int, n_fft: int, num_mels: int) -> Tensor:
    """Return `htk_basis` from 0 Hz to half the rate with torchaudio's rounding."""
    top = 2595 * math.log10(1 + sample_rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, num_mels + 2) / 2595) - 1)
    return triangles(torch.linspace(0, sample_rate / 2, n_fft // 2 + 1), edges)


def kaldi_basis(sample_rate: int, n_fft: int, num_mels: int, f_min: float, f_max: float) -> Tensor:
    """Return triangles over the scale 1127 ln(1 + f / 700) itself: (num_mels, n_fft // 2 + 1), float64.

    As in Kaldi's fbank and VGGish, bins at or below f_min and at or above f_max have no weight.
    """
    low, high = (1127.0 * math.log1p(f / 700.0) for f in (f_min, f_max))
    mels = 1127.0 * torch.log1p(_bins(sample_rate, n_fft) / 700.0)
    return triangles(mels, torch.linspace(low, high, num_mels + 2, dtype=torch.float64))


@lru_cache(maxsize=8)
def kaldi_basis_float32(sample_rate: int, n_fft: int, num_mels: int, f_min: float, f_max: float) -> Tensor:
    """Return `kaldi_basis` with torchaudio's rounding; the top bin is 0."""
    low, high = (1127.0 * math.log(1 + f / 700.0) for f in (f_min, f_max))
    edges = low + torch.arange(num_mels + 2, dtype=torch.float32) * ((high - low) / (num_mels + 1))
    bins = sample_rate / n_fft * torch.arange(n_fft // 2, dtype=torch.float32)
    return F.pad(triangles(1127.0 * (1.0 + bins / 700.0).log(), edges), (0, 1))
