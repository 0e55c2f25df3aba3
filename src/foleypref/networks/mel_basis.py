"""Kaldi's mel filter bank, used by the front ends of PaSST and VGGish: triangles over mel.

The mel scale is 1127 ln(1 + f / 700). Slaney's bank, for the sound models, is in `mel.py`. ImageBind and
Synchformer, whose benchmark digits depend on float32 filters, have front ends of their own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def kaldi_basis(sample_rate: int, n_fft: int, num_mels: int, f_min: float, f_max: float) -> Tensor:
    """Return triangles with straight sides over mel and peak 1: (num_mels, n_fft // 2 + 1), float64.

    As in Kaldi's fbank and VGGish, bins at or below f_min and at or above f_max have no weight.
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
