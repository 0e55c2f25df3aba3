"""Building blocks of MMAudio's flow network: gated MLPs, joint and fused attention.

Letters: B batch, N tokens of a stream, D width, H heads, d = D / H.
Written from the published description of MMAudio (arXiv 2412.15322); layers named as in its checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NamedTuple, ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foleypref.networks.time_conv import projection, windows

P = ParamSpec("P")

RMS_EPS = torch.finfo(torch.float32).eps  # in every dtype: torch's default when no eps is given


class GatedMLP(nn.Module):
    """w2(SiLU(w1 x) · w3 x), convolutions over time where `kernel` > 1: (B, N, D) -> (B, N, D)."""

    def __init__(self, dim: int, kernel: int = 1) -> None:
        super().__init__()
        inner = 256 * -(-(2 * 4 * dim // 3) // 256)
        self.kernel = kernel
        self.w1 = projection(dim, inner, kernel, bias=False)
        self.w2 = projection(inner, dim, kernel, bias=False)
        self.w3 = projection(dim, inner, kernel, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D), with time in front of D if `kernel` > 1."""
        x = windows(x, self.kernel)
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


def cache_tensor(build: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Cache results of `build` by its arguments; torch.compile can trace it, unlike functools.lru_cache."""
    cache: dict[tuple[Any, ...], Tensor] = {}

    @wraps(build)
    def lookup(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        assert not kwargs, "arguments are the key of the cache: give them by position"
        if args not in cache:
            if len(cache) >= 64:
                cache.clear()
            with torch.inference_mode(False), torch.no_grad():  # or training after sampling could not use it
                cache[args] = build(*args, **kwargs)
        return cache[args]

    return lookup


@cache_tensor
def rotation_table(length: int, dim: int, scale: float, device: torch.device) -> Tensor:
    """Return cos and sin of n s 10000^(-2 i / d) for positions n and pairs i: (N, d / 2, 2), float32.

    Computed on the CPU, so that every device rotates by the same angles, and never cast with the network.
    """
    exponents = torch.arange(0, dim, 2, dtype=torch.float32, device="cpu") / dim
    frequencies = 1.0 / (10000.0**exponents) * scale
    angles = torch.arange(length, dtype=torch.float32, device="cpu")[:, None] * frequencies
    return torch.stack([angles.cos(), angles.sin()], dim=-1).to(device)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate the adjacent pairs (2i, 2i + 1) of x (..., N, d) by the table (N, d / 2, 2), in float32."""
    pairs = x.float().unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():  # fuses real numbers only; run one by one, complex ones are faster
        (a, b), (cos, sin) = pairs.unbind(-1), table.unbind(-1)
        turned = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1)
    else:
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(table))
    return turned.flatten(-2)


class QKV(NamedTuple):
    """Queries and keys (2, B, H, N, d) and values (B, H, N, d) of some tokens."""

    qk: Tensor
    v: Tensor


class SelfAttention(nn.Module):
    """Queries, keys and values of one stream; its block does the attention."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm = nn.RMSNorm(dim // num_heads, eps=RMS_EPS)
        self.k_norm = nn.RMSNorm(dim // num_heads, eps=RMS_EPS)

    def forward(self, x: Tensor, table: Tensor | None) -> QKV:
        """x (B, N, D), rotation table (N, d / 2, 2) or none."""
        # the kind (q, k or v) is the fastest index of the 3D, the head the slowest
        split = self.qkv(x).unflatten(-1, (self.num_heads, -1, 3))  # (B, N, H, d, 3)
        split = split.permute(4, 0, 2, 1, 3).contiguous()  # (3, B, H, N, d)
        gains = torch.stack([self.q_norm.weight, self.k_norm.weight]).float()
        qk = F.rms_norm(split[:2].float(), gains.shape[1:], eps=RMS_EPS) * gains[:, None, None, None]
        if table is not None:
            qk = rotate(qk, table)
        return QKV(qk.to(split.dtype), split[2])


def attend(parts: Sequence[QKV]) -> list[Tensor]:
    """Attend over the joined tokens of all parts; return each part's result (B, N, D)."""
    qk, v = parts[0] if len(parts) == 1 else (torch.cat(each, dim=-2) for each in zip(*parts, strict=True))
    joined = F.scaled_dot_product_attention(qk[0], qk[1], v).transpose(1, 2).flatten(2)  # (B, N, D)
    return list(joined.split([part.v.shape[2] for part in parts], dim=1))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return LN(x) (1 + scale) + shift, LN without weights and with eps 1e-5: (B, N, D)."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-5), 1 + scale)


class StreamBlock(nn.Module):
    """One stream's part of a joint block, or a whole fused block: tokens and a condition to tokens (adaLN).

    Conditions come as SiLU(c), shared by all blocks: (B, 1, D), (B, N, D), or (B, S, D) with an index (N,)
    that stretches S to N, which leaves fewer rows to modulate. `kernel` is 1 for text. A `pre_only` block
    gives the others its keys and values and does not change its tokens.
    """

    def __init__(self, dim: int, num_heads: int, kernel: int, pre_only: bool = False) -> None:
        super().__init__()
        self.attn = SelfAttention(dim, num_heads)
        self.linear1 = None if pre_only else projection(dim, dim, kernel, bias=True)
        self.ffn = None if pre_only else GatedMLP(dim, kernel)
        # the SiLU stands for the checkpoint's numbering; it has been applied
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, (2 if pre_only else 6) * dim))

    def before(
        self, x: Tensor, silu_c: Tensor, table: Tensor | None, stretch: Tensor | None = None
    ) -> tuple[QKV, Sequence[Tensor]]:
        """Return the attention inputs of x (B, N, D), and the modulations left for `after`."""
        modulation = self.adaLN_modulation[1](silu_c)
        if stretch is not None:
            modulation = modulation[:, stretch]
        shift, scale, *rest = modulation.chunk(2 if self.ffn is None else 6, dim=-1)
        return self.attn(modulate(x, shift, scale), table), rest

    def after(self, x: Tensor, attended: Tensor, rest: Sequence[Tensor]) -> Tensor:
        """Add attention's result and the MLP to x: (B, N, D) -> (B, N, D)."""
        if self.linear1 is None or self.ffn is None:
            return x
        gate_a, shift, scale, gate_m = rest
        x = torch.addcmul(x, self.linear1(attended), gate_a)
        return torch.addcmul(x, self.ffn(modulate(x, shift, scale)), gate_m)

    def forward(
        self, x: Tensor, silu_c: Tensor, table: Tensor | None, stretch: Tensor | None = None
    ) -> Tensor:
        """Run the fused block: x (B, N, D) attends to itself."""
        part, rest = self.before(x, silu_c, table, stretch)
        return self.after(x, attend([part])[0], rest)


class JointBlock(nn.Module):
    """One block each for latent, clip and text tokens, and one attention over all, in that order."""

    def __init__(self, dim: int, num_heads: int, last: bool) -> None:
        super().__init__()
        self.latent_block = StreamBlock(dim, num_heads, kernel=3)
        self.clip_block = StreamBlock(dim, num_heads, kernel=3, pre_only=last)
        self.text_block = StreamBlock(dim, num_heads, kernel=1, pre_only=last)

    def forward(
        self,
        tokens: Sequence[Tensor],
        silu_e: Tensor,
        silu_g: Tensor,
        tables: Sequence[Tensor],
        stretch: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Update latent, clip and text tokens; e (B, L, D), g (B, 1, D), tables of latent and clip."""
        latent, clip, text = tokens
        latent_part, latent_rest = self.latent_block.before(latent, silu_e, tables[0], stretch)
        clip_part, clip_rest = self.clip_block.before(clip, silu_g, tables[1])
        text_part, text_rest = self.text_block.before(text, silu_g, None)
        latent_seen, clip_seen, text_seen = attend([latent_part, clip_part, text_part])
        return (
            self.latent_block.after(latent, latent_seen, latent_rest),
            self.clip_block.after(clip, clip_seen, clip_rest),
            self.text_block.after(text, text_seen, text_rest),
        )
