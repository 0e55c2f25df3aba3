"""Synchformer's visual branch: divided space-time attention over 16-frame segments at 25 fps.

It conditions MMAudio and is half of the Synchformer score; one set of weights serves both. Weight names are
those of `synchformer_state_dict.pth` below `vfeat_extractor.` (arXiv 2401.16423, built on arXiv 2106.05392).

Letters: B videos, T frames, S segments, N segments in one chunk, F frames of tokens (8), P places in a frame
(196), D width, H heads, d width of a head.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PREFIX = "vfeat_extractor."
SEGMENT_FRAMES, SEGMENT_STEP = 16, 8
TUBELET, PATCH, IMAGE = 2, 16, 224
FRAMES, PLACES = SEGMENT_FRAMES // TUBELET, (IMAGE // PATCH) ** 2
NORM_EPS = 1e-6  # of every LayerNorm here; torch's default is 1e-5


def num_segments(num_frames: int) -> int:
    """Count the segments of 16 frames, one every 8 frames, that fit into `num_frames`; 0 below 16."""
    return max(0, (num_frames - SEGMENT_FRAMES) // SEGMENT_STEP + 1)


def sync_pixels(frames: Tensor) -> Tensor:
    """Convert frames (..., 224, 224, 3) uint8 to the network's input (..., 3, 224, 224) in [-1, 1]."""
    return (frames.movedim(-1, -3) / 255 - 0.5) / 0.5


def visual_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the visual branch of a Synchformer state dict, without its prefix. Raises ValueError."""
    branch = {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
    if not branch:
        raise ValueError(
            f"no '{PREFIX}*' weight among {len(state)} ({', '.join(sorted(state)[:3])}, ...); "
            "give synchformer_state_dict.pth"
        )
    return branch


class DividedAttention(nn.Module):
    """Patches attend within a place over time or within a frame over space; CLS attends to all."""

    def __init__(self, width: int, heads: int, over_time: bool) -> None:
        super().__init__()
        self.heads, self.over_time = heads, over_time
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, 1 + F·P, D), CLS first and patches time-major -> same shape."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (N, H, 1+FP, d)
        cls = F.scaled_dot_product_attention(q[:, :, :1], k, v)
        groups = [part[:, :, 1:].unflatten(2, (FRAMES, PLACES)) for part in (q, k, v)]
        if self.over_time:
            groups = [part.transpose(2, 3) for part in groups]  # (N, H, G, n, d), G groups of n patches
        parts = (groups[0], self._with_cls(k, groups[1]), self._with_cls(v, groups[2]))
        q, k, v = (part.flatten(1, 2) for part in parts)
        patches = F.scaled_dot_product_attention(q, k, v).unflatten(1, groups[0].shape[1:3])
        if self.over_time:
            patches = patches.transpose(2, 3)
        out = torch.cat([cls, patches.flatten(2, 3)], dim=2)
        return self.proj(out.transpose(1, 2).flatten(2))

    @staticmethod
    def _with_cls(x: Tensor, groups: Tensor) -> Tensor:
        cls = x[:, :, None, :1].expand(-1, -1, groups.shape[2], -1, -1)
        return torch.cat([cls, groups], dim=3)


def mlp(width: int) -> nn.Sequential:
    """Return two layers with an exact GELU between, four times as wide inside, as in vision transformers."""
    fc1, fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
    return nn.Sequential(OrderedDict(fc1=fc1, gelu=nn.GELU(), fc2=fc2))


class _Block(nn.Module):
    """Time, then space, then MLP; the norms keep the numbers of the model that it was built on."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = DividedAttention(width, heads, over_time=False)
        self.timeattn = DividedAttention(width, heads, over_time=True)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = mlp(width)
        self.norm3 = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.timeattn(self.norm3(x))
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TokenPool(nn.Module):
    """One pre-norm encoder layer that pools tokens into its CLS token, without positions.

    Only the CLS token leaves, so only its query and its MLP are computed.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)  # for its weights' names
        self.linear1 = nn.Linear(width, 4 * width)
        self.linear2 = nn.Linear(4 * width, width)
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, P, D) -> (N, D)."""
        width = x.shape[-1]
        cls = self.cls_token.expand(len(x), -1, -1)
        y = self.norm1(torch.cat([cls, x], dim=1))
        weight, bias = self.self_attn.in_proj_weight, self.self_attn.in_proj_bias
        q = F.linear(y[:, :1], weight[:width], bias[:width])
        k, v = F.linear(y, weight[width:], bias[width:]).chunk(2, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        cls = cls + self.self_attn.out_proj(out)
        return (cls + self.linear2(F.gelu(self.linear1(self.norm2(cls)))))[:, 0]


class SynchformerVisual(nn.Module):
    """25 fps in, 8 tokens per segment out; segments overlap by half and never see each other."""

    def __init__(self, width: int = 768, depth: int = 12, heads: int = 12) -> None:
        super().__init__()
        tubelet = (TUBELET, PATCH, PATCH)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + PLACES, width))
        self.temp_embed = nn.Parameter(torch.zeros(1, FRAMES, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, PATCH, PATCH)})  # in the file, unused
        self.patch_embed_3d = nn.ModuleDict({"proj": nn.Conv3d(3, width, tubelet, tubelet)})
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.spatial_attn_agg = TokenPool(width, heads)

    def forward(self, video: Tensor, segments_at_once: int = 4) -> Tensor:
        """Normalised video (B, T, 3, 224, 224) -> (B, 8·S, D), segments end to end: MMAudio's sync input."""
        return self.segments(video, segments_at_once).flatten(1, 2)

    def segments(self, video: Tensor, segments_at_once: int = 4) -> Tensor:
        """Normalised video (B, T, 3, 224, 224) -> (B, S, 8, D), S = (T - 16) // 8 + 1; a rest is left out.

        Memory beyond input and output grows only with `segments_at_once`. Raises ValueError under 16 frames.
        """
        if video.ndim != 5 or video.shape[2:] != (3, IMAGE, IMAGE) or video.shape[1] < SEGMENT_FRAMES:
            raise ValueError(
                f"video must be (B, T >= {SEGMENT_FRAMES}, 3, {IMAGE}, {IMAGE}), got {tuple(video.shape)}; "
                f"{SEGMENT_FRAMES / 25:g} s at 25 frames a second are the least"
            )
        count = num_segments(video.shape[1])
        starts = [(b, SEGMENT_STEP * s) for b in range(len(video)) for s in range(count)]
        chunks = []
        for at in range(0, len(starts), segments_at_once):
            chunk = starts[at : at + segments_at_once]
            chunks.append(self.segment(torch.stack([video[b, t : t + SEGMENT_FRAMES] for b, t in chunk])))
        return torch.cat(chunks).unflatten(0, (len(video), count))

    def segment(self, frames: Tensor) -> Tensor:
        """Encode normalised segments (N, 16, 3, 224, 224) as (N, 8, D)."""
        x = self.patch_embed_3d["proj"](frames.transpose(1, 2))  # (N, D, F, 14, 14)
        x = x.flatten(3).permute(0, 2, 3, 1)  # (N, F, P, D)
        x = x + self.pos_embed[:, None, 1:] + self.temp_embed[:, :, None]
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        x = torch.cat([cls, x.flatten(1, 2)], dim=1)  # (N, 1 + F·P, D)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x[:, 1:]).unflatten(1, (FRAMES, PLACES))
        return self.spatial_attn_agg(x.flatten(0, 1)).unflatten(0, (-1, FRAMES))
