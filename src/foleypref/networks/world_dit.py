"""The world's flow network: a small diffusion transformer over audio latents with aligned motion features.

Letters: B batch, L latent frames (25 Hz, as many as video frames), D latent channels, C condition
channels, S scene tokens, W width, H heads of d channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

N = TypeVar("N", bound=nn.Module)


def time_embedding(t: Float[Tensor, " B"], dim: int) -> Float32[Tensor, "B {dim}"]:
    """Embed t in [0, 1] as sinusoids, in float32 under any autocast: (B,) -> (B, dim)."""
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(dim // 2, device=t.device) / (dim // 2))
    angles = 1000.0 * t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def rotate(
    x: Float[Tensor, "B L H d"], positions: Int64[Tensor, " L"] | None = None
) -> Float[Tensor, "B L H d"]:
    """Apply rotary positions to (B, L, H, d): 0 to L − 1, or the given ones."""
    half = x.shape[-1] // 2
    frequencies = torch.exp(-math.log(1000.0) * torch.arange(half, device=x.device) / half)
    places = torch.arange(x.shape[1], device=x.device) if positions is None else positions
    angles = places[:, None] * frequencies  # (L, d/2)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    halves = x.unflatten(-1, (2, half))
    turned = halves * torch.stack([cos, cos], 1)[:, None]
    return (turned + halves.flip(-2) * torch.stack([-sin, sin], 1)[:, None]).flatten(-2)


def zeroed(layer: N) -> N:
    """Return `layer` with zeros for weights, so that a new block or head adds nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class Block(nn.Module):
    """Self-attention and MLP, both modulated by the global condition (adaLN-zero)."""

    def __init__(
        self, width: int, heads: int, attention: Callable[..., Tensor] = F.scaled_dot_product_attention
    ) -> None:
        super().__init__()
        self.heads, self.attention = heads, attention
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        self.shift = zeroed(nn.Linear(width, 6 * width))

    def forward(
        self, x: Float[Tensor, "B L W"], c: Float[Tensor, "B W"], positions: Int64[Tensor, " L"] | None = None
    ) -> Float[Tensor, "B L W"]:
        """Update tokens (B, L, W) under the condition c; `positions` as in `rotate`."""
        width = x.shape[-1]
        s1, b1, g1, s2, b2, g2 = self.shift(F.silu(c))[:, None].chunk(6, dim=-1)
        h = F.layer_norm(x, (width,)) * (1 + s1) + b1
        qk, v = self.qkv(h).unflatten(-1, (3 * self.heads, -1)).tensor_split([2 * self.heads], dim=2)
        q, k = rotate(qk, positions).transpose(1, 2).chunk(2, dim=1)  # (B, H, L, d), turned together
        h = self.attention(q, k, v.transpose(1, 2))
        x = x + g1 * self.proj(h.transpose(1, 2).flatten(2))
        return x + g2 * self.mlp(F.layer_norm(x, (width,)) * (1 + s2) + b2)


class WorldDiT(nn.Module):
    """v(x_t, t | scene tokens, motion features, caption): (B, L, D) -> (B, L, D).

    All-zero conditions are the null conditions: dropout zeroes them in training, guidance in sampling.
    """

    def __init__(
        self, latent_dim: int = 32, cond_dim: int = 64, width: int = 128, depth: int = 6, heads: int = 4
    ) -> None:
        super().__init__()
        self.width = width
        self.inputs = nn.Linear(latent_dim + cond_dim, width)
        self.motion = nn.Sequential(
            nn.Conv1d(cond_dim, width, 5, padding=2), nn.SiLU(), nn.Conv1d(width, width, 3, padding=1)
        )
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.scene = nn.Sequential(nn.Linear(2 * cond_dim, width), nn.SiLU(), nn.Linear(width, width))
        self.text = nn.Sequential(nn.Linear(cond_dim, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.final, self.out = zeroed(nn.Linear(width, 2 * width)), zeroed(nn.Linear(width, latent_dim))

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        t: Float[Tensor, " B"],
        scene: Float[Tensor, "B S C"],
        motion: Float[Tensor, "B L C"],
        text: Float[Tensor, "B C"],
    ) -> Float[Tensor, "B L D"]:
        """Return the velocity at (x, t): (B, L, D)."""
        c = self.time(time_embedding(t, self.width).to(x.dtype)) + self.text(text)
        c = c + self.scene(torch.cat([scene.mean(1), scene.amax(1)], dim=-1))
        h = self.inputs(torch.cat([x, motion], dim=-1)) + self.motion(motion.transpose(1, 2)).transpose(1, 2)
        for block in self.blocks:
            h = block(h, c)
        scale, shift = self.final(F.silu(c))[:, None].chunk(2, dim=-1)
        return self.out(F.layer_norm(h, (self.width,)) * (1 + scale) + shift)
