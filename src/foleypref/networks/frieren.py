"""Frieren's flow network: velocity of audio latents given CAVP features of the video.

Letters: B batch, T latents, F = T / 8 video frames, N tokens (the time token and T latents), C latent
channels, D width, H heads, d = D / H, k groups of rows in guidance, t time with 0 noise and 1 data. Latents
are (B, T, C) here, (B, C, T) upstream.
Written from the published description of Frieren (arXiv 2406.00320); keys and shapes are its checkpoints'.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from foleypref.networks.time_conv import ChannelLastConv1d

FRAME_LATENTS = 8  # latents a video frame is stretched over: 256 ms of sound for 250 ms of picture
TIME_STEPS = 1000
FREQUENCIES = 256
BLOCK_GROUPS, BLOCK_EPS = 32, 1e-6  # of a block's GroupNorm; every other norm here has 1e-5
FINAL_GROUPS, FINAL_EPS = 16, 1e-5
FF_KERNEL = 9
FF_WIDENING = 4

RELEASED: dict[str, int] = {
    "latent_dim": 20,
    "feature_dim": 512,
    "context_dim": 768,
    "hidden_dim": 576,
    "num_heads": 8,
    "depth": 4,
    "max_len": 1000,
}
"""Constructor arguments of the released network, the same for all three variants."""


def network_time(t: Tensor) -> Tensor:
    """Return the integer time that the network was trained with, 1000 t truncated, for t (B,) in [0, 1].

    The product is rounded to float32 as upstream: 0.29 gives 290 although float32's 0.29 is below it, and
    the sum of five times 0.04 gives 199.
    """
    return (t.float() * TIME_STEPS).long()


class TimeEmbedder(nn.Module):
    """cos and sin of a time in 0…1000 at 128 frequencies, then an MLP: (B,) -> (B, D)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))

    @staticmethod
    def sinusoid(time: Tensor) -> Tensor:
        """time (B,) -> (B, 256) float32: in bfloat16 the angles would lose whole turns."""
        half = FREQUENCIES // 2
        exponents = torch.arange(half, dtype=torch.float32, device="cpu") * -math.log(10000.0) / half
        # the exponential in float64: float32's last bit is the machine's, and 1000 radians are 6e-5 of it
        angles = time.float()[:, None] * exponents.double().exp().float().to(time.device)
        return torch.cat([angles.cos(), angles.sin()], dim=-1)

    def forward(self, time: Tensor, dtype: torch.dtype) -> Tensor:
        """time (B,), integer or not, on the scale of 0…1000."""
        return self.mlp(self.sinusoid(time).to(dtype))


class SelfAttention(nn.Module):
    """Full attention without mask; q, k and v have no bias: (B, N, D) -> (B, N, D)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        assert dim % heads == 0, f"{heads} heads do not divide a width of {dim}"
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        qkv = (self.to_q, self.to_k, self.to_v)
        parts = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in qkv)
        out = F.scaled_dot_product_attention(*parts)  # (B, H, N, d), scale d ** -0.5
        return self.to_out(out.transpose(1, 2).flatten(2))


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
        return self.conv1d(self.norm_final(x.transpose(1, 2)).transpose(1, 2))


class Estimator(nn.Module):
    """The transformer on time token and latents; half the width comes from x_t, half from the video."""

    def __init__(
        self, latent_dim: int, context_dim: int, hidden_dim: int, num_heads: int, depth: int, max_len: int
    ) -> None:
        super().__init__()
        dim = hidden_dim
        self.t_embedder = TimeEmbedder(dim)
        mlp = nn.Sequential(  # the GELU is approximate, unlike in the blocks
            nn.Linear(context_dim, dim), nn.GELU("tanh"), nn.Linear(dim, dim), nn.LayerNorm(dim)
        )
        self.c_embedder = nn.Sequential(OrderedDict(mlp=mlp))
        self.proj_in = ChannelLastConv1d(latent_dim, dim, 5)
        self.x_proj, self.c_proj = nn.Linear(dim, dim // 2), nn.Linear(dim, dim // 2)
        self.pos_emb = nn.Embedding(max_len, dim)
        self.blocks = nn.ModuleList(Block(dim, num_heads) for _ in range(depth))
        self.final_layer = FinalLayer(dim, latent_dim)

    def prepare(self, context: Tensor) -> Tensor:
        """Project the condition stage's output (B, F, context_dim) to half the width (B, F, D / 2)."""
        return self.c_proj(self.c_embedder(context))

    def forward(self, x: Tensor, time: Tensor, prepared: Tensor, recompute: bool = False) -> Tensor:
        """x (B, T, C), time (B,) of 0…1000, prepared (k B, T / 8, D / 2) -> velocity (k B, T, C).

        `recompute`: blocks run again in backward. Raises ValueError for more latents than positions.
        """
        groups, length = len(prepared) // len(x), x.shape[1]
        assert len(prepared) == groups * len(x), f"{len(x)} rows of x, {len(prepared)} of conditions"
        assert length == FRAME_LATENTS * prepared.shape[1], f"{length} latents, {prepared.shape[1]} frames"
        if length >= len(self.pos_emb.weight):
            most = len(self.pos_emb.weight) - 1
            raise ValueError(f"{length} latents are more than the network's {most}: give a shorter clip")
        x = self.x_proj(self.proj_in(x)).repeat(groups, 1, 1)
        frames = prepared[:, :, None].expand(-1, -1, FRAME_LATENTS, -1).flatten(1, 2)  # (k B, T, D / 2)
        token = self.t_embedder(time, x.dtype).repeat(groups, 1)[:, None]
        h = torch.cat([token, torch.cat([x, frames], dim=-1)], dim=1)  # (k B, 1 + T, D)
        h = h + self.pos_emb.weight[: length + 1]
        for block in self.blocks:
            h = checkpoint(block, h, use_reentrant=False) if recompute else block(h)
        return self.final_layer(h[:, 1:])


class Frieren(nn.Module):
    """Estimator and condition stage, which are trained together: v(x_t, t | CAVP features).

    No video is zeros in CAVP's space; the condition stage then returns its bias for every frame.
    `gradient_checkpointing` recomputes every block in backward: less memory, the same gradients.
    """

    def __init__(self, *, feature_dim: int, context_dim: int, **sizes: Any) -> None:
        super().__init__()
        self.gradient_checkpointing = False
        self.model = nn.ModuleDict({"diffusion_model": Estimator(context_dim=context_dim, **sizes)})
        linear = nn.Linear(feature_dim, context_dim)
        self.cond_stage_model = nn.ModuleDict({"embedder": nn.Sequential(linear)})

    @property
    def estimator(self) -> Estimator:
        """The transformer, stored under `model.diffusion_model`."""
        return cast(Estimator, self.model["diffusion_model"])

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype, in which everything but time is computed."""
        return self.estimator.pos_emb.weight.dtype

    def prepare_conditions(self, conditions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Map `cavp` (B, F, 512), unit vectors or zeros, to `frames` (B, F, D / 2) for any x_t and t."""
        context = self.cond_stage_model["embedder"](conditions["cavp"].to(self.dtype))
        return {"frames": self.estimator.prepare(context)}

    def forward(self, x_t: Tensor, t: Tensor, conditions: dict[str, Tensor]) -> Tensor:
        """x_t (B, T, C), t (B,) in [0, 1] -> velocity (k B, T, C), in x_t's dtype.

        Time is truncated to thousandths here. `conditions` has k B rows, prepared or not; x_t and t are
        projected once and repeated for every group of B.
        """
        if "frames" not in conditions:
            conditions = self.prepare_conditions(conditions)
        time, recompute = network_time(t), self.gradient_checkpointing and torch.is_grad_enabled()
        return self.estimator(x_t.to(self.dtype), time, conditions["frames"], recompute).to(x_t.dtype)
