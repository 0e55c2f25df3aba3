"""The world's video codec: every 48 × 48 frame to one latent and back, each frame by itself.

A latent depends only on its frame, so that a rule that moves latents in time moves the picture.
Letters: B batch, T frames (25 Hz), M frames of all clips, D = 36 C latent channels, H and W pixels (48;
training also uses crops).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

GRID = 6
Frames = UInt8[Tensor, "B T 48 48 3"]
Pictures = Float[Tensor, "M 3 H W"]
Grid = Float[Tensor, "M C h w"]  # h, w: cells of 8 pixels


class _ResBlock(nn.Module):
    """A residual block without norm over the picture, which would tie a small moving object to the rest."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.SiLU(), nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _up(channels_in: int, channels_out: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, 4 * channels_out, kernel, padding=kernel // 2), nn.PixelShuffle(2)
    )


class WorldVideoCodec(nn.Module):
    """Encoder to normalised latents (B, T, D) and decoder to frames (B, T, 48, 48, 3) uint8.

    Inside, a frame is a grid of 6 × 6 by `channels`; an orthonormal rotation of the whole latent then sorts
    its axes by their variance.
    """

    latent_mean: Tensor
    latent_basis: Tensor
    latent_scale: Tensor

    def __init__(self, channels: int = 4, width: int = 128) -> None:
        super().__init__()
        self.channels, latent_dim = channels, channels * GRID**2
        self.register_buffer("latent_mean", torch.zeros(latent_dim))
        self.register_buffer("latent_basis", torch.eye(latent_dim))  # orthonormal columns
        self.register_buffer("latent_scale", torch.ones(latent_dim))
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 32, 4, 2, padding=1),
            nn.SiLU(),
            nn.Conv2d(32, 64, 4, 2, padding=1),
            _ResBlock(64),
            nn.SiLU(),
            nn.Conv2d(64, width, 4, 2, padding=1),
            _ResBlock(width),
            _ResBlock(width),
            nn.SiLU(),
            nn.Conv2d(width, 2 * channels, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            _ResBlock(width),
            _ResBlock(width),
            _up(width, 64, 1),
            _ResBlock(64),
            _up(64, 32, 1),
            _ResBlock(32),
            nn.SiLU(),
            _up(32, 3, 3),
        )

    def posterior(self, pictures: Pictures) -> tuple[Grid, Grid]:
        """Return mean and log-variance of raw latents of pictures in [-1, 1], each (M, C, H / 8, W / 8)."""
        mean, log_var = self.encoder(pictures).chunk(2, dim=1)
        return mean, log_var.clamp(-12, 4)

    def pictures(self, raw: Grid) -> Pictures:
        """Decode raw latents (M, C, H / 8, W / 8) to pictures (M, 3, H, W), about in [-1, 1]."""
        return self.decoder(raw)

    def encode(self, frames: Frames) -> Float[Tensor, "B T D"]:
        """Encode frames to the posterior's mean, normalised (B, T, D)."""
        mean = self.posterior(to_pictures(frames.flatten(0, 1)))[0]
        normal = (mean.flatten(1) - self.latent_mean) @ self.latent_basis * self.latent_scale
        return normal.unflatten(0, frames.shape[:2])

    def decode(self, latents: Float[Tensor, "B T D"]) -> Frames:
        """Decode normalised latents (B, T, D) to frames (B, T, 48, 48, 3) uint8."""
        raw = (latents / self.latent_scale) @ self.latent_basis.T + self.latent_mean
        grid = raw.flatten(0, 1).unflatten(1, (self.channels, GRID, GRID))
        pixels = (self.pictures(grid).clamp(-1, 1) + 1) * 127.5
        return pixels.round().to(torch.uint8).permute(0, 2, 3, 1).unflatten(0, latents.shape[:2])


def to_pictures(frames: UInt8[Tensor, "M 48 48 3"]) -> Pictures:
    """Convert frames (M, 48, 48, 3) uint8 to (M, 3, 48, 48) in [-1, 1]."""
    return frames.permute(0, 3, 1, 2).float() / 127.5 - 1
