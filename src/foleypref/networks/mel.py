"""Log-mel front ends: MMAudio's and Frieren's on an uncentred STFT, and Kaldi's `fbank` as in torchaudio.

Vocoders, autoencoders and judges were trained on exactly these numbers, so `kaldi_fbank` computes in float32
and in torchaudio's order: a filter bank in float64 moves ImageBind's log-mels by 2e-5 of their range.
Letters: B batch, N samples, T mel frames, W samples of a frame, M mel bands.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from foleypref.networks.mel_basis import kaldi_basis_float32, slaney_basis

FRAME_S, HOP_S = 0.025, 0.010
PRE_EMPHASIS = 0.97
FLOOR = torch.finfo(torch.float32).eps


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
