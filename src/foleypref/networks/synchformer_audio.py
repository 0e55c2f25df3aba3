"""Synchformer's audio branch: an audio spectrogram transformer (AST) over segments of 0.64 s of sound.

Weight names are those of `synchformer_state_dict.pth` below `afeat_extractor.` (arXiv 2401.16423, built on
arXiv 2104.01778). A segment is a log-mel of 128 bands and 66 frames of 10 ms.

Letters: B sounds, S segments, N segments in one chunk, M mel bands (128), T mel frames (66), A patches over
frequency (12), K over time (6), L tokens, D width, H heads.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from foleypref.networks.synchformer_visual import TokenPool

MELS, MEL_FRAMES = 128, 66
PATCH, PATCH_STEP = 16, 10  # patches overlap
BANDS, STEPS = (MELS - PATCH) // PATCH_STEP + 1, (MEL_FRAMES - PATCH) // PATCH_STEP + 1  # 12, 6
SPECIAL = 2  # CLS and distillation token, before the patches
NORM_EPS = 1e-12  # of AST's own LayerNorms; the pooling layer has 1e-6


class _Embeddings(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.distillation_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embeddings = nn.Parameter(torch.zeros(1, SPECIAL + BANDS * STEPS, width))
        self.patch_embeddings = nn.ModuleDict({"projection": nn.Conv2d(1, width, PATCH, PATCH_STEP)})

    def forward(self, mel: Tensor) -> Tensor:
        """mel (N, 1, M, T) -> (N, 2 + A·K, D), all times of the lowest band first."""
        patches = self.patch_embeddings["projection"](mel).flatten(2).transpose(1, 2)
        special = torch.cat([self.cls_token, self.distillation_token], dim=1).expand(len(mel), -1, -1)
        return torch.cat([special, patches], dim=1) + self.position_embeddings


def _dense(width: int, to: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(dense=nn.Linear(width, to)))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
        self.output = _dense(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, L, D) -> same shape."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in self.attention.values()
        )
        return self.output(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = _Attention(width, heads)
        self.intermediate, self.output = _dense(width, 4 * width), _dense(4 * width, width)
        self.layernorm_before, self.layernorm_after = (nn.LayerNorm(width, eps=NORM_EPS) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.layernorm_before(x))
        return x + self.output(F.gelu(self.intermediate(self.layernorm_after(x))))


class _AST(nn.Module):
    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embeddings = _Embeddings(width)
        layers = nn.Sequential(*(_Layer(width, heads) for _ in range(depth)))
        self.encoder = nn.Sequential(OrderedDict(layer=layers))
        self.layernorm = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, mel: Tensor) -> Tensor:
        """mel (N, 1, M, T) -> patches after the last LayerNorm, (N, A·K, D)."""
        return self.layernorm(self.encoder(self.embeddings(mel)))[:, SPECIAL:]


class SynchformerAudio(nn.Module):
    """Log-mel segments in, 6 tokens per segment out; segments never see each other."""

    def __init__(self, width: int = 768, depth: int = 12, heads: int = 12) -> None:
        super().__init__()
        self.ast = _AST(width, depth, heads)
        self.freq_attn_agg = TokenPool(width, heads)

    def segments(self, mel: Float[Tensor, "B S M T"], segments_at_once: int = 24) -> Float[Tensor, "B S K D"]:
        """Log-mel segments (B, S, 128, 66) -> (B, S, 6, D). Raises ValueError for another shape.

        Memory beyond input and output grows only with `segments_at_once`.
        """
        if mel.shape[2:] != (MELS, MEL_FRAMES):
            raise ValueError(
                f"segments must be (B, S, {MELS}, {MEL_FRAMES}), got {tuple(mel.shape)}; "
                "cut sound into segments of 10240 samples at 16 kHz first"
            )
        chunks = mel.flatten(0, 1).split(segments_at_once)
        return torch.cat([self.segment(chunk) for chunk in chunks]).unflatten(0, mel.shape[:2])

    def segment(self, mel: Float[Tensor, "N M T"]) -> Float[Tensor, "N K D"]:
        """Encode segments (N, 128, 66) as (N, 6, D): the 12 bands of a time are pooled into one token."""
        x = self.ast(mel[:, None]).unflatten(1, (BANDS, STEPS)).transpose(1, 2)  # (N, K, A, D)
        return self.freq_attn_agg(x.flatten(0, 1)).unflatten(0, (-1, STEPS))
