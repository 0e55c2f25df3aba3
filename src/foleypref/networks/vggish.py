"""VGGish: 128 numbers for each 0.96 s of mono sound at 16 kHz (arXiv 1609.09430).

Weight names are those of `vggish-10086976.pth`. As in the Fréchet benchmarks, there is no ReLU after the
last layer, no PCA and no quantisation.

Letters: B sounds, N samples, P patches of all sounds, T frames of 10 ms (96 per patch), M mel bands (64), D
features (128).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foleypref.networks.mel_basis import kaldi_basis

SAMPLE_RATE = 16000
WINDOW, HOP, N_FFT = 400, 160, 512
MELS, F_MIN, F_MAX = 64, 125.0, 7500.0
OFFSET = 0.01
PATCH_FRAMES, NUM_FEATURES = 96, 128
LAYERS = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool")
CPU_PATCHES = 8  # at once on a CPU, whose caches hold no more


def num_patches(num_samples: int) -> int:
    """Count the whole patches of 0.96 s in `num_samples` at 16 kHz; 0 below 0.975 s."""
    frames = max(0, (num_samples - WINDOW) // HOP + 1)
    return frames // PATCH_FRAMES


def vggish_patches(wave: Float[Tensor, " N"]) -> Float[Tensor, "P 96 M"]:
    """Compute log-mel patches of mono sound at 16 kHz: (N,) -> (P, 96, 64), without overlap or remainder."""
    count = num_patches(len(wave))
    if count == 0:
        return wave.new_zeros(0, PATCH_FRAMES, MELS)
    window = torch.hann_window(WINDOW, device=wave.device)  # periodic
    frames = wave.unfold(0, WINDOW, HOP)[: count * PATCH_FRAMES] * window  # the first begins at sample 0
    magnitude = torch.fft.rfft(frames, N_FFT).abs()
    basis = kaldi_basis(SAMPLE_RATE, N_FFT, MELS, F_MIN, F_MAX).to(magnitude)
    return (magnitude @ basis.T + OFFSET).log().unflatten(0, (count, PATCH_FRAMES))


class _Pool(nn.Module):
    """Maximum of 2x2; on a CPU it takes a third of `nn.MaxPool2d`'s time."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.maximum(x[..., ::2, :], x[..., 1::2, :])
        return torch.maximum(x[..., ::2], x[..., 1::2])


class VGGish(nn.Module):
    """Six convolutions and three linear layers over one patch."""

    num_features = NUM_FEATURES

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for layer in LAYERS:
            if isinstance(layer, int):
                layers += [nn.Conv2d(channels, layer, 3, padding=1), nn.ReLU(inplace=True)]
                channels = layer
            else:
                layers.insert(-1, _Pool())  # before the ReLU: the same result, with less work
        self.features = nn.Sequential(*layers)
        places = (PATCH_FRAMES // 16) * (MELS // 16)
        self.embeddings = nn.Sequential(
            nn.Linear(channels * places, 4096),
            nn.ReLU(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, NUM_FEATURES),
        )

    def forward(self, patches: Float[Tensor, "P T M"]) -> Float[Tensor, "P D"]:
        """Log-mel patches (P, 96, 64) -> (P, 128)."""
        chunks = patches[:, None].split(CPU_PATCHES if patches.device.type == "cpu" else max(1, len(patches)))
        x = torch.cat([self.features(chunk) for chunk in chunks])  # (P, C, 6, 4)
        # channels last before flattening: the network was converted from TensorFlow
        return self.embeddings(x.movedim(1, -1).flatten(1))
