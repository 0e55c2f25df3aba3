"""Band-limited resampling by a windowed sinc (Smith, Digital Audio Resampling), the same as torchaudio's.

Features must come from the resampler that the networks were trained with: on white noise two good
resamplers agree only to some 16 dB. Letters: p / q the reduced ratio of rates, K filter taps of one phase.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_KERNEL = 2**26  # taps over all phases (512 MB): rates without a common divisor would need more


@dataclass(frozen=True)
class Sinc:
    """A low-pass filter: zero crossings per side, cut-off as a share of the lower Nyquist rate.

    `beta` is the Kaiser window's; None takes a Hann window.
    """

    zero_crossings: int
    rolloff: float
    beta: float | None = None
    dtype: torch.dtype = torch.float64  # in which the taps are computed


KAISER_BEST = Sinc(64, 0.9475937167399596, 14.769656459379492)  # as for MMAudio's data
HANN = Sinc(6, 0.99)  # torchaudio's Resample: Frieren and most scorers
HANN_FLOAT32 = Sinc(6, 0.99, dtype=torch.float32)  # torchaudio's function: differs by up to 2e-6


def resample(wave: Tensor, from_rate: int, to_rate: int, sinc: Sinc = KAISER_BEST) -> Tensor:
    """Resample sound (..., N) between rates in Hz: (..., ceil(N·to_rate / from_rate)), same dtype.

    Raises ValueError for rates that are not positive or have too small a common divisor, and for integers.
    """
    if not wave.is_floating_point():
        raise ValueError(f"cannot resample {wave.dtype} samples: convert to float in [-1, 1] first")
    if from_rate < 1 or to_rate < 1:
        raise ValueError(f"cannot resample from {from_rate} to {to_rate} Hz: both rates must be positive")
    if from_rate == to_rate:
        return wave
    divisor = math.gcd(from_rate, to_rate)
    q, p = from_rate // divisor, to_rate // divisor
    kernel, reach = _kernel(q, p, sinc)
    flat = wave.reshape(-1, 1, wave.shape[-1])  # (B, 1, N)
    # every q input samples give one output sample of each of the p phases
    phases = F.conv1d(F.pad(flat, (reach, reach + q)), kernel.to(wave), stride=q)  # (B, p, frames)
    length = -(-wave.shape[-1] * p // q)
    return phases.transpose(1, 2).reshape(*wave.shape[:-1], -1)[..., :length]


@lru_cache(maxsize=16)
def _kernel(q: int, p: int, sinc: Sinc) -> tuple[Tensor, int]:
    """Return taps (p, 1, K) for a step of q/p samples, and their reach in samples beyond a block of q."""
    cutoff = min(q, p) * sinc.rolloff  # in zero crossings a block, both rates counted over the same block
    reach = math.ceil(sinc.zero_crossings * q / cutoff)
    if p * (2 * reach + q) > MAX_KERNEL:
        raise ValueError(
            f"cannot resample at the ratio {p}/{q}: the filter would have {p * (2 * reach + q):,} taps; "
            "take rates with a large common divisor, such as 44100 and 16000 Hz"
        )
    samples = torch.arange(-reach, reach + q, dtype=sinc.dtype) / q
    outputs = torch.arange(p, dtype=sinc.dtype) / p
    z = (samples - outputs[:, None]) * cutoff  # (p, K), the distance in zero crossings
    z = z.clamp(-sinc.zero_crossings, sinc.zero_crossings)
    if sinc.beta is None:
        window = torch.cos(z * math.pi / sinc.zero_crossings / 2).square()
    else:
        beta = torch.tensor(sinc.beta, dtype=sinc.dtype)
        part = z / sinc.zero_crossings
        window = torch.i0(beta * (1 - part.square()).sqrt()) / torch.i0(beta)
    z = z * math.pi
    lobes = torch.where(z == 0, 1.0, z.sin() / z)  # torch.sinc rounds otherwise
    return (lobes * (window * (cutoff / q)))[:, None], reach
