"""Kaldi's log-mel features (`fbank`) as torchaudio computes them, for networks that were trained on them.

Everything is in float32 and in torchaudio's order, because the logarithm amplifies the rounding of quiet
bands: a filter bank in float64 already moves them by 2e-5 of the range of ImageBind's log-mels.

Letters: N samples, T frames, W samples of a frame, M mel bands.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

FRAME_S, HOP_S = 0.025, 0.010
PRE_EMPHASIS = 0.97
FLOOR = torch.finfo(torch.float32).eps


def kaldi_fbank(
    wave: Float[Tensor, "*B N"], sample_rate: int, num_mels: int, f_min: float, f_max: float
) -> Float[Tensor, "*B M T"]:
    """Compute log mel energies: (..., N) -> (..., num_mels, T), T = (N - W) // hop + 1, no padding.

    Frames of 25 ms every 10 ms lose their mean, are pre-emphasised and weighted by a symmetric Hann window,
    without dither. f_min and f_max are in Hz. Raises ValueError for less than one frame.
    """
    width, hop = int(sample_rate * FRAME_S), int(sample_rate * HOP_S)
    if wave.shape[-1] < width:
        raise ValueError(
            f"{wave.shape[-1]} samples are no frame of {1000 * FRAME_S:g} ms; "
            f"give {width} or more at {sample_rate} Hz"
        )
    frames = wave.float().unfold(-1, width, hop)  # (..., T, W)
    frames = frames - frames.mean(-1, keepdim=True)
    before = torch.cat([frames[..., :1], frames[..., :-1]], -1)  # Kaldi's; the window hides the first
    window = torch.hann_window(width, periodic=False, device=wave.device)
    frames = (frames - PRE_EMPHASIS * before) * window
    n_fft = 2 ** math.ceil(math.log2(width))
    power = torch.fft.rfft(frames, n_fft).abs().square()
    basis = kaldi_basis_float32(sample_rate, n_fft, num_mels, f_min, f_max).to(power.device)
    return (power @ basis.T).clamp(min=FLOOR).log().transpose(-1, -2)


@lru_cache(maxsize=8)
def kaldi_basis_float32(sample_rate: int, n_fft: int, num_mels: int, f_min: float, f_max: float) -> Tensor:
    """Return `mel_basis.kaldi_basis` with torchaudio's rounding: (num_mels, n_fft // 2 + 1), top bin 0."""
    low, high = (1127.0 * math.log(1 + f / 700.0) for f in (f_min, f_max))
    step = (high - low) / (num_mels + 1)
    edges = low + torch.arange(num_mels + 2, dtype=torch.float32)[:, None] * step
    bins = sample_rate / n_fft * torch.arange(n_fft // 2, dtype=torch.float32)
    mels = 1127.0 * (1.0 + bins / 700.0).log()
    rise = (mels - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - mels) / (edges[2:] - edges[1:-1])
    return F.pad(torch.minimum(rise, fall).clamp(min=0), (0, 1))
