"""ImageBind's audio and vision branches: 2 s clips and frame pairs in one space (arXiv 2305.05665).

Weight names are those of `imagebind_huge.pth`, whose other branches (text, depth, thermal, IMU) are left out.

Letters: B items, S clips of an item, N clips, C channels, T frames (2), L tokens, D width, E width of the
joint space (1024).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from foleypref.networks.synchformer_visual import mlp

IMAGE, IMAGE_PATCH, FRAMES = 224, 14, 2
MELS, MEL_FRAMES, AUDIO_PATCH, AUDIO_STEP = 128, 204, 16, 10
NORM_EPS = 1e-6  # of every LayerNorm but the audio stem's, which has torch's 1e-5
AUDIO_SCALE = 20.0  # factor of audio embeddings; a cosine does not see it

OTHER_HALVES = ("text", "depth", "thermal", "imu")
_PARTS = ("modality_preprocessors", "modality_trunks", "modality_heads", "modality_postprocessors")


@dataclasses.dataclass(frozen=True)
class ImageBindSizes:
    """Sizes of both branches; the defaults are `imagebind_huge`."""

    vision_width: int = 1280
    vision_depth: int = 32
    vision_heads: int = 16
    audio_width: int = 768
    audio_depth: int = 12
    audio_heads: int = 12
    embed_dim: int = 1024


def without_other_halves(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of ImageBind without its weights for text, depth, thermal and IMU."""
    others = tuple(f"{part}.{half}." for part in _PARTS for half in OTHER_HALVES)
    return {name: value for name, value in state.items() if not name.startswith(others)}


class ImageBind(nn.Module):
    """`embed_audio` and `embed_video` return means of clips' embeddings, whose cosine is the IB-score."""

    def __init__(self, sizes: ImageBindSizes | None = None) -> None:
        super().__init__()
        s = sizes or ImageBindSizes()
        self.embed_dim = s.embed_dim
        vision = _Trunk(s.vision_width, s.vision_depth, s.vision_heads, norm_first=True)
        audio = _Trunk(s.audio_width, s.audio_depth, s.audio_heads, with_bias_token=True)
        self.modality_preprocessors = nn.ModuleDict(
            {"vision": _VisionTokens(s.vision_width), "audio": _AudioTokens(s.audio_width)}
        )
        self.modality_trunks = nn.ModuleDict({"vision": vision, "audio": audio})
        self.modality_heads = nn.ModuleDict(
            {"vision": _head(s.vision_width, s.embed_dim), "audio": _head(s.audio_width, s.embed_dim)}
        )
        self.modality_postprocessors = nn.ModuleDict(
            {"vision": _Normalise(), "audio": nn.Sequential(_Normalise(), _Scale())}
        )

    def embed_audio(self, clips: Float[Tensor, "B S 1 M F"], clips_at_once: int = 8) -> Float[Tensor, "B E"]:
        """Embed normalised log-mels (B, S, 1, 128, 204) as (B, E), of norm about 20, averaged over S."""
        return self._mean("audio", clips, clips_at_once)

    def embed_video(
        self, clips: Float[Tensor, "B S 3 T H W"], clips_at_once: int = 8
    ) -> Float[Tensor, "B E"]:
        """Embed normalised clips (B, S, 3, 2, 224, 224) as (B, E), of norm at most 1; T = 1 is a still.

        Memory beyond input and output grows only with `clips_at_once`.
        """
        return self._mean("vision", clips, clips_at_once)

    def _mean(self, half: str, clips: Tensor, clips_at_once: int) -> Tensor:
        vectors = []
        for chunk in clips.flatten(0, 1).split(clips_at_once):
            tokens = self.modality_preprocessors[half](chunk)  # (N, L, D)
            first = self.modality_trunks[half](tokens, 1)  # the class token, (N, 1, D)
            vectors.append(self.modality_postprocessors[half](self.modality_heads[half](first)))
        return torch.cat(vectors).unflatten(0, clips.shape[:2]).mean(1)


class _Repeat(nn.Module):
    """Repeat a single frame, (N, 3, 1, H, W) -> (N, 3, 2, H, W), as ImageBind does for images."""

    def forward(self, x: Tensor) -> Tensor:
        return x.expand(-1, -1, FRAMES, -1, -1) if x.shape[2] == 1 else x


class _Stem(nn.Module):
    def __init__(self, proj: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.proj = proj
        self.norm_layer = norm

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) -> patches (N, L, D)."""
        return self.norm_layer(self.proj(x).flatten(2).transpose(1, 2))


class _Tokens(nn.Module):
    """Patches behind a class token, with learned positions: (N, C, ...) -> (N, L, D)."""

    def __init__(self, stem: _Stem, num_patches: int, width: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.rgbt_stem = stem
        self.pos_embedding_helper = nn.ParameterDict({"pos_embed": torch.zeros(1, 1 + num_patches, width)})

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), self.rgbt_stem(x)], dim=1)
        return x + self.pos_embedding_helper["pos_embed"]


class _VisionTokens(_Tokens):
    def __init__(self, width: int) -> None:
        size = (FRAMES, IMAGE_PATCH, IMAGE_PATCH)
        proj = nn.Sequential(_Repeat(), nn.Conv3d(3, width, size, size, bias=False))
        super().__init__(_Stem(proj, nn.Identity()), (IMAGE // IMAGE_PATCH) ** 2, width)


class _AudioTokens(_Tokens):
    def __init__(self, width: int) -> None:
        bands, steps = ((size - AUDIO_PATCH) // AUDIO_STEP + 1 for size in (MELS, MEL_FRAMES))  # 12, 19
        conv = nn.Conv2d(1, width, AUDIO_PATCH, AUDIO_STEP, bias=False)
        super().__init__(_Stem(conv, nn.LayerNorm(width)), bands * steps, width)


class _Attention(nn.Module):
    """Attention with the names of `nn.MultiheadAttention`; a bias token adds a learned key and value."""

    def __init__(self, width: int, heads: int, with_bias_token: bool) -> None:
        super().__init__()
        self.heads, self.with_bias_token = heads, with_bias_token
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        if with_bias_token:
            self.bias_k = nn.Parameter(torch.zeros(1, 1, width))
            self.bias_v = nn.Parameter(torch.zeros(1, 1, width))

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        """x (N, L, D) -> same shape, or only its `first` tokens."""
        width, weight, bias = x.shape[-1], self.in_proj_weight, self.in_proj_bias
        q = F.linear(x[:, :first], weight[:width], bias[:width])
        k, v = F.linear(x, weight[width:], bias[width:]).chunk(2, -1)
        if self.with_bias_token:
            k = torch.cat([k, self.bias_k.expand(len(x), -1, -1)], dim=1)  # (N, L + 1, D)
            v = torch.cat([v, self.bias_v.expand(len(x), -1, -1)], dim=1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, with_bias_token: bool) -> None:
        super().__init__()
        self.attn = _Attention(width, heads, with_bias_token)
        self.norm_1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = mlp(width)
        self.norm_2 = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        x = x[:, :first] + self.attn(self.norm_1(x), first)
        return x + self.mlp(self.norm_2(x))


class _Trunk(nn.Module):
    """Pre-norm blocks on (N, L, D); there is no norm after the last."""

    def __init__(
        self, width: int, depth: int, heads: int, *, norm_first: bool = False, with_bias_token: bool = False
    ) -> None:
        super().__init__()
        norms = [nn.LayerNorm(width, eps=NORM_EPS)] if norm_first else []
        self.pre_transformer_layer = nn.Sequential(*norms)
        self.blocks = nn.Sequential(*(_Block(width, heads, with_bias_token) for _ in range(depth)))

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        """x (N, L, D) -> same shape, or only its `first` tokens: the last block then skips the others."""
        x = self.pre_transformer_layer(x)
        *before, last = self.blocks
        for block in before:
            x = block(x)
        return last(x, first)


class _Normalise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1)


class _Scale(nn.Module):
    log_logit_scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("log_logit_scale", torch.tensor(math.log(AUDIO_SCALE)))

    def forward(self, x: Tensor) -> Tensor:
        return self.log_logit_scale.exp() * x


def _head(width: int, embed_dim: int) -> nn.Sequential:
    norm = nn.LayerNorm(width, eps=NORM_EPS)
    return nn.Sequential(norm, nn.Flatten(), nn.Linear(width, embed_dim, bias=False))  # (N, 1, D) -> (N, E)
