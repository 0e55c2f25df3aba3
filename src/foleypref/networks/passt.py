"""PaSST-S: a vision transformer for 527 AudioSet classes in 10 s of mono sound at 32 kHz (arXiv 2110.05069).

Weight names are those of `passt-s-f128-p16-s10-ap.476-swa.pt`. Positions in frequency and in time are learned
separately. Training drops patches; here all are used.

Letters: B sounds, N samples, M mel bands (128), T frames of 10 ms (1000), A frequency patches (12), S time
patches (99), L tokens (2 + A·S), D width, H heads, K classes (527).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from foleypref.networks.mel_basis import kaldi_basis
from foleypref.networks.panns import NUM_CLASSES, Tags
from foleypref.networks.synchformer_visual import mlp

SAMPLE_RATE, NUM_SAMPLES = 32000, 320000
N_FFT, WINDOW, HOP = 1024, 800, 320
MELS, FRAMES = 128, 1000
F_MAX = 15000.0  # Hz; 16000 less half of the 2000 Hz by which training moves it
PRE_EMPHASIS = 0.97
FLOOR = 1e-5
PATCH, PATCH_STEP = 16, 10
BANDS, STEPS = (MELS - PATCH) // PATCH_STEP + 1, (FRAMES - PATCH) // PATCH_STEP + 1  # 12, 99
NORM_EPS = 1e-6  # of every LayerNorm but the head's, which has torch's 1e-5
SPECIAL = 2  # tokens before the patches; after the last block only these are read
CPU_ROWS = 2  # log-mels at once on a CPU: with more, a block's memory is mapped and unmapped every time


def ten_seconds(wave: Float[Tensor, "... N"]) -> Float[Tensor, "... 320000"]:
    """Cut sound at 32 kHz, or pad it with silence at its end, to 320000 samples."""
    wave = wave[..., :NUM_SAMPLES]
    return F.pad(wave, (0, NUM_SAMPLES - wave.shape[-1]))


def passt_power(wave: Float[Tensor, "B N"]) -> Float[Tensor, "B 513 (N-1)//320+1"]:
    """Compute power spectra of pre-emphasised sound at 32 kHz: (B, N) -> (B, 513, T)."""
    wave = wave[:, 1:] - PRE_EMPHASIS * wave[:, :-1]  # one sample shorter
    window = torch.hann_window(WINDOW, periodic=False, device=wave.device)  # symmetric, unlike its peers
    spectrum = torch.stft(wave, N_FFT, HOP, WINDOW, window, return_complex=True)
    return spectrum.real.square() + spectrum.imag.square()


def passt_mel(wave: Float[Tensor, "B N"]) -> Float[Tensor, "B 128 (N-1)//320+1"]:
    """Compute normalised log-mels of sound at 32 kHz: (B, N) -> (B, 128, T)."""
    power = passt_power(wave)
    basis = kaldi_basis(SAMPLE_RATE, N_FFT, MELS, 0.0, F_MAX).to(power)
    return ((basis @ power + FLOOR).log() + 4.5) / 5


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        """x (B, L, D) -> same shape, or only its `first` tokens."""
        width, weight, bias = x.shape[-1], self.qkv.weight, self.qkv.bias
        q = F.linear(x[:, :first], weight[:width], bias[:width])
        k, v = F.linear(x, weight[width:], bias[width:]).chunk(2, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = mlp(width)

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        x = x[:, :first] + self.attn(self.norm1(x), first)
        return x + self.mlp(self.norm2(x))


class PaSST(nn.Module):
    """Overlapping patches of a log-mel, a class and a distillation token, 12 pre-norm blocks."""

    num_classes, min_samples = NUM_CLASSES, 1

    def __init__(self, width: int = 768, depth: int = 12, heads: int = 12) -> None:
        super().__init__()
        self.num_features = width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, width))
        self.new_pos_embed = nn.Parameter(torch.zeros(1, 2, width))  # of both tokens
        self.freq_new_pos_embed = nn.Parameter(torch.zeros(1, width, BANDS, 1))
        self.time_new_pos_embed = nn.Parameter(torch.zeros(1, width, 1, STEPS))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, width, PATCH, PATCH_STEP)})
        self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, NUM_CLASSES))
        self.head_dist = nn.Linear(width, NUM_CLASSES)  # in the file, never used

    def forward(self, wave: Float[Tensor, "B N"]) -> Tags:
        """Mono sound (B, N) at 32 kHz, cut or padded to 10 s -> logits (B, 527) and features (B, 768)."""
        return self.tags(passt_mel(ten_seconds(wave)))

    def tags(self, mel: Float[Tensor, "B M T"]) -> Tags:
        """Normalised log-mels (B, 128, 1000) -> logits and features. Raises ValueError for other shapes."""
        if mel.shape[1:] != (MELS, FRAMES):
            raise ValueError(
                f"pictures must be (B, {MELS}, {FRAMES}), got {tuple(mel.shape)}; give 10 s of sound"
            )
        chunks = mel.split(CPU_ROWS if mel.device.type == "cpu" else max(1, len(mel)))
        features = torch.cat([self._features(chunk) for chunk in chunks])
        return Tags(self.head(features), features)

    def _features(self, mel: Tensor) -> Tensor:
        patches = self.patch_embed["proj"](mel[:, None]) + self.time_new_pos_embed + self.freq_new_pos_embed
        tokens = torch.cat([self.cls_token, self.dist_token], dim=1) + self.new_pos_embed
        x = torch.cat([tokens.expand(len(mel), -1, -1), patches.flatten(2).mT], dim=1)  # (B, L, D)
        *before, last = self.blocks
        for block in before:
            x = block(x)
        return self.norm(last(x, SPECIAL)).mean(1)
