"""Building blocks of Frieren's estimator: two self-attentions and a gated convolution over time.

Letters: B batch, N tokens (the time token and T latents), D width, H heads, d = D / H.
Written from the published description of Frieren (arXiv 2406.00320); layers named as in its checkpoints.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from foleypref.networks.time_conv import ChannelLastConv1d

BLOCK_GROUPS, BLOCK_EPS = 32, 1e-6  # of a block's GroupNorm; every other norm here has 1e-5
FINAL_GROUPS, FINAL_EPS = 16, 1e-5
FF_KERNEL = 9
FF_WIDENING = 4


class SelfAttention(nn.Module):
    """Full attention without mask; q, k and v have no bias: (B, N, D) -> (B, N, D)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        assert dim % heads == 0, f"{heads} heads do not divide a width of {dim}"
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, N, D) -> same shape."""
        parts = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in self._qkv)
        out = F.scaled_dot_product_attention(*parts)  # (B, H, N, d), scale d ** -0.5
        return self.to_out(out.transpose(1, 2).flatten(2))

    @property
    def _qkv(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        return self.to_q, self.to_k, self.to_v


class _GatedGELU(nn.Module):
    """value · GELU(gate), both from one convolution over time, the value first; the GELU is the exact one."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.proj = ChannelLastConv1d(dim, 2 * inner, FF_KERNEL)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class ConvFeedForward(nn.Module):
    """D -> 4 D, gated, -> D, by convolutions over nine tokens, the time token among them: (B, N, D)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        inner = FF_WIDENING * dim
        self.net = nn.Sequential(
            _GatedGELU(dim, inner), nn.Identity(), ChannelLastConv1d(inner, dim, FF_KERNEL)
        )

    def forward(self, x: Tensor) -> Tensor:
        """x (B, N, D) -> same shape."""
        return self.net(x)


class TransformerBlock(nn.Module):
    """Self-attention twice, then the feed-forward, each after a LayerNorm and added to its input."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attn1 = SelfAttention(dim, heads)
        self.ff = ConvFeedForward(dim)
        self.attn2 = SelfAttention(dim, heads)  # in the place of a cross-attention: the context never comes
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, N, D) -> same shape."""
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x))
        return x + self.ff(self.norm3(x))


class Block(nn.Module):
    """GroupNorm over channels and time, 1×1 in, one transformer block, 1×1 out, added to the input."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(BLOCK_GROUPS, dim, eps=BLOCK_EPS)
        self.proj_in = ChannelLastConv1d(dim, dim, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(dim, heads)])
        self.proj_out = ChannelLastConv1d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, N, D) -> same shape."""
        y = self.proj_in(self.norm(x.transpose(1, 2)).transpose(1, 2))
        for block in self.transformer_blocks:
            y = block(y)
        return self.proj_out(y) + x


class FinalLayer(nn.Module):
    """GroupNorm over channels and time without the time token, then 1×1: (B, T, D) -> (B, T, latent_dim)."""

    def __init__(self, dim: int, latent_dim: int) -> None:
        super().__init__()
        self.norm_final = nn.GroupNorm(FINAL_GROUPS, dim, eps=FINAL_EPS)
        self.conv1d = ChannelLastConv1d(dim, latent_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, latent_dim)."""
        return self.conv1d(self.norm_final(x.transpose(1, 2)).transpose(1, 2))
