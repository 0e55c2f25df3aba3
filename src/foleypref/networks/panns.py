"""PANNs' Cnn14: 527 AudioSet classes from mono sound of any length (arXiv 1912.10211), at 16 or at 32 kHz.

Weight names are those of `Cnn14_16k_mAP=0.438.pth` and `Cnn14_mAP=0.431.pth`, whose STFT kernels (a Fourier
transform under a Hann window) are left out. Benchmarks read the logits; the sigmoid is the caller's.

Letters: B sounds, N samples, T frames of 10 ms, M mel bands (64), K classes (527), D features (2048).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from foleypref.networks.mel_basis import slaney_basis
from foleypref.networks.winograd import WinogradConv

Variant = Literal["16k", "32k"]

NUM_CLASSES, NUM_FEATURES, MELS = 527, 2048, 64
SPEECH = 0  # the class "Speech"
CHANNELS = (1, 64, 128, 256, 512, 1024, 2048)
FLOOR = 1e-10
MIN_FRAMES = 2**5  # five poolings halve the time
EARLY = 3  # blocks whose activations for one sound fill a CPU's caches; later blocks are bound by products


@dataclass(frozen=True)
class Sizes:
    """The front end of a variant; frequencies in Hz, lengths in samples."""

    sample_rate: int
    n_fft: int
    hop: int
    f_min: float
    f_max: float


SIZES: dict[str, Sizes] = {
    "16k": Sizes(16000, 512, 160, 50.0, 8000.0),
    "32k": Sizes(32000, 1024, 320, 50.0, 14000.0),
}


class Tags(NamedTuple):
    """Outputs of an AudioSet tagger for B sounds."""

    logits: Tensor  # (B, 527), before softmax or sigmoid
    features: Tensor  # (B, D), inputs of the last layer


class LogMel(nn.Module):
    """Decibels in mel bands; the filters are stored among the weights."""

    melW: Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        with torch.device("cpu"):  # not on meta, where its operators take seconds to import
            basis = slaney_basis(sizes.sample_rate, sizes.n_fft, MELS, sizes.f_min, sizes.f_max)
        self.register_buffer("melW", basis.T.float().contiguous())

    def forward(self, wave: Float[Tensor, "B N"]) -> Float[Tensor, "B N//{self.sizes.hop}+1 M"]:
        """Sound (B, N) -> (B, T, M) in dB; silence is -100 dB."""
        n_fft, hop = self.sizes.n_fft, self.sizes.hop
        window = torch.hann_window(n_fft, device=wave.device)  # periodic; centred frames, reflected ends
        spectrum = torch.stft(wave, n_fft, hop, window=window, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        return 10 * (power.mT @ self.melW).clamp(min=FLOOR).log10()


class _ConvBlock(nn.Module):
    def __init__(self, channels: int, to: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, to, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(to, to, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(to)
        self.bn2 = nn.BatchNorm2d(to)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.bn1(self.conv1(x)).relu_())).relu_()

    def speed_up(self, winograd: bool) -> None:
        for conv, norm in (("conv1", "bn1"), ("conv2", "bn2")):
            folded = _fold(getattr(self, conv), getattr(self, norm))
            setattr(self, conv, WinogradConv(folded) if winograd else folded)
            setattr(self, norm, nn.Identity())


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Fold the norm after `conv`, whose statistics are fixed, into one convolution, in float64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    with torch.device("meta"):
        folded = nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1)
    folded.weight = nn.Parameter((conv.weight.double() * scale[:, None, None, None]).float(), False)
    folded.bias = nn.Parameter((norm.bias.double() - norm.running_mean.double() * scale).float(), False)
    return folded


class Cnn14(nn.Module):
    """Six blocks of two convolutions over a log-mel, pooled over frequency, then over time."""

    num_classes, num_features = NUM_CLASSES, NUM_FEATURES

    def __init__(self, variant: Variant = "16k") -> None:
        super().__init__()
        self.sizes = SIZES[variant]
        self.logmel_extractor = LogMel(self.sizes)
        self.bn0 = nn.BatchNorm2d(MELS)
        for index, (channels, to) in enumerate(pairwise(CHANNELS), start=1):
            self.add_module(f"conv_block{index}", _ConvBlock(channels, to))
        self.fc1 = nn.Linear(NUM_FEATURES, NUM_FEATURES)
        self.fc_audioset = nn.Linear(NUM_FEATURES, NUM_CLASSES)

    @property
    def min_samples(self) -> int:
        """Samples of the shortest sound that leaves a frame after the last pooling, 0.31 s."""
        return (MIN_FRAMES - 1) * self.sizes.hop

    def forward(self, wave: Float[Tensor, "B N"]) -> Tags:
        """Return logits (B, 527) and features (B, 2048) of mono sound. Raises ValueError under 0.31 s."""
        if wave.shape[1] < self.min_samples:
            raise ValueError(
                f"{wave.shape[1]} samples at {self.sizes.sample_rate} Hz are too few for Cnn14, which halves "
                f"its frames five times; give {self.min_samples} or more"
            )
        x = self.logmel_extractor(wave)  # (B, T, M)
        x = self.bn0(x.mT[..., None])[..., 0].mT[:, None]  # (B, 1, T, M), each band by its own statistics
        at_once = 1 if x.device.type == "cpu" else len(x)
        x = torch.cat([self.blocks(chunk, range(1, EARLY + 1)) for chunk in x.split(at_once)])
        x = self.blocks(x, range(EARLY + 1, len(CHANNELS))).mean(3)  # (B, D, T // 32)
        features = self.fc1(x.amax(2) + x.mean(2)).relu()
        return Tags(self.fc_audioset(features), features)

    def speed_up(self, device: torch.device | str) -> Self:
        """Move to `device` and rewrite for inference: equal outputs up to rounding, other weight names.

        Call it once. Norms are folded into the convolutions before them; on a CPU the late blocks run by
        Winograd's filtering, which needs fewer products.
        """
        cpu = torch.device(device).type == "cpu"
        for index in range(1, len(CHANNELS)):
            block = self.get_submodule(f"conv_block{index}")
            assert isinstance(block, _ConvBlock)
            block.speed_up(winograd=cpu and index > EARLY)
        return self.to(device)

    def blocks(self, x: Tensor, indices: range) -> Tensor:
        """Run (B, C, T, M) through some of the blocks 1 to 6, pooling by 2 after each but the last."""
        for index in indices:
            x = self.get_submodule(f"conv_block{index}")(x)
            x = F.avg_pool2d(x, 2) if index < len(CHANNELS) - 1 else x
        return x
