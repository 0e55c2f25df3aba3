"""Kaldi's mel filter bank, which PaSST's and VGGish's front ends were built with: triangles over mel.

On the scale 1127 ln(1 + f / 700). Slaney's bank, which the sound models take, is in `mel.py`; where a
benchmark's digits hang on float32 filters (ImageBind, Synchformer), the front end has its own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def kaldi_basis(sample_rate: int, n_fft: int, num_mels: int, f_min: float, f_max: float) -> Tensor:
    """Triangles whose sides are straight over mel, peak 1: (num_mels, n_fft // 2 + 1), float64.

    Kaldi's fbank, and VGGish's bank too: a bin at or below f_min, or at f_max and above, has no weight.
    """
    mels = 1127.0 * torch.log1p(_bins(sample_rate, n_fft) / 700.0)
    return _triangles(mels, _edges(num_mels, f_min, f_max))


def _edges(num_mels: int, f_min: float, f_max: float) -> Tensor:
    low, high = (1127.0 * math.log1p(f / 700.0) for f in (f_min, f_max))
    return torch.linspace(low, high, num_mels + 2, dtype=torch.float64)


def _bins(sample_rate: int, n_fft: int) -> Tensor:
    return torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)


def _triangles(bins: Tensor, edges: Tensor) -> Tensor:
    edges = edges[:, None]
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.minimum(rise, fall).clamp(min=0)
