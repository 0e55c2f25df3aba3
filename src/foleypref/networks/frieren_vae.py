"""Frieren's autoencoder: log-mels to a Gaussian over latents and back, by convolutions over time.

Letters: B batch, M mel bands, T mel frames, L = T / 2 latents, C latent channels, W width of a level.
The mel bands are the channels of the input. Written from the published description of Frieren (arXiv
2406.00320), whose autoencoder is Make-An-Audio 2's (arXiv 2305.18474); keys and shapes are its checkpoints'.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

GROUPS, NORM_EPS = 32, 1e-6
ENCODER_KERNEL, DECODER_KERNEL, END_KERNEL, RESAMPLE_KERNEL = 5, 3, 5, 3
SCALE = 0.18215  # the flow's latents are this times the autoencoder's


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Conv1d:
    return nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, width, eps=NORM_EPS)


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice, added to the input, which is projected if the width changes."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(inputs), _conv(inputs, outputs, kernel)
        self.norm2, self.conv2 = _norm(outputs), _conv(outputs, outputs, kernel)
        if inputs != outputs:
            self.nin_shortcut = _conv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, W in, N) -> (B, W out, N)."""
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return y + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class Attention(nn.Module):
    """One head over all of time, added to the input: (B, W, N) -> (B, W, N)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.q, self.k, self.v, self.proj_out = (_conv(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, W, N) -> same shape; scale W ** -0.5."""
        y = self.norm(x)
        q, k, v = (layer(y).transpose(1, 2) for layer in (self.q, self.k, self.v))  # (B, N, W)
        return x + self.proj_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2))


class _Middle(nn.Module):
    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(width, width, kernel)
        self.attn_1 = Attention(width)
        self.block_2 = ResidualBlock(width, width, kernel)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class _Resample(nn.Module):
    """Halve the time steps (padded with a zero on the right), or double them by repetition."""

    def __init__(self, width: int, down: bool) -> None:
        super().__init__()
        self.down = down
        stride, padding = (2, 0) if down else (1, RESAMPLE_KERNEL // 2)
        self.conv = nn.Conv1d(width, width, RESAMPLE_KERNEL, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1)) if self.down else x.repeat_interleave(2, dim=2))


class _Level(nn.Module):
    """Residual blocks of one width, then the change of rate if this level has one."""

    def __init__(self, inputs: int, outputs: int, kernel: int, num_blocks: int) -> None:
        super().__init__()
        widths = [inputs] + [outputs] * num_blocks
        self.block = nn.ModuleList(ResidualBlock(a, b, kernel) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        for name in ("downsample", "upsample"):
            x = getattr(self, name)(x) if hasattr(self, name) else x
        return x


class _Encoder(nn.Module):
    """Levels of growing width; the first halves the rate."""

    def __init__(self, num_mels: int, latent_dim: int, widths: Sequence[int], num_blocks: int) -> None:
        super().__init__()
        kernel = ENCODER_KERNEL
        self.conv_in = _conv(num_mels, widths[0], END_KERNEL)
        inputs = [widths[0], *widths[:-1]]
        self.down = nn.ModuleList(_Level(a, b, kernel, num_blocks) for a, b in zip(inputs, widths))
        self.down[0].downsample = _Resample(widths[0], down=True)
        self.mid = _Middle(widths[-1], kernel)
        self.norm_out = _norm(widths[-1])
        self.conv_out = _conv(widths[-1], 2 * latent_dim, END_KERNEL)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.conv_in(mel)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class _Decoder(nn.Module):
    """Levels of shrinking width with one more block each; the middle one doubles the rate."""

    def __init__(self, num_mels: int, latent_dim: int, widths: Sequence[int], num_blocks: int) -> None:
        super().__init__()
        kernel = DECODER_KERNEL
        self.conv_in = _conv(latent_dim, widths[-1], END_KERNEL)
        self.mid = _Middle(widths[-1], kernel)
        inputs = [*widths[1:], widths[-1]]
        self.up = nn.ModuleList(_Level(a, b, kernel, num_blocks + 1) for a, b in zip(inputs, widths))
        self.up[1].upsample = _Resample(widths[1], down=False)
        self.norm_out = _norm(widths[0])
        self.conv_out = _conv(widths[0], num_mels, END_KERNEL)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.mid(self.conv_in(latents))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class FrierenVAE(nn.Module):
    """Log-mels (B, M, T) <-> latents (B, C, L), L = T / 2, not scaled; deterministic."""

    def __init__(
        self,
        num_mels: int = 80,
        latent_dim: int = 20,
        width: int = 384,
        multipliers: Sequence[int] = (1, 2, 4),
        num_blocks: int = 2,
    ) -> None:
        super().__init__()
        widths = [width * factor for factor in multipliers]
        self.encoder = _Encoder(num_mels, latent_dim, widths, num_blocks)
        self.decoder = _Decoder(num_mels, latent_dim, widths, num_blocks)
        self.quant_conv = nn.Conv1d(2 * latent_dim, 2 * latent_dim, 1)
        self.post_quant_conv = nn.Conv1d(latent_dim, latent_dim, 1)

    def encode(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mels (B, M, T), T even -> mean and log-variance, each (B, C, L), the latter in [-30, 20].

        Raises ValueError for an odd T, whose last frame would be lost.
        """
        if mel.shape[2] % 2:
            raise ValueError(f"{mel.shape[2]} mel frames make no whole latents: give an even number of them")
        mean, logvar = self.quant_conv(self.encoder(mel)).chunk(2, dim=1)
        return mean, logvar.clamp(-30, 20)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, L) -> log-mels (B, M, 2 L)."""
        return self.decoder(self.post_quant_conv(latents))
