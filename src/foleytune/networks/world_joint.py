"""The world's joint flow network: one transformer over the latents of a clip's picture and of its sound.

Letters: B batch, L latent frames of each modality (25 a second), V video channels, A audio channels, C
caption channels, W width, H heads of d channels, N tokens of both.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from foleytune.networks.world_dit import Block, time_embedding

LEAST_LEFT = 0.1  # of the flow's time, in the divisor of the velocity


def attend(
    q: Float[Tensor, "B H N d"], k: Float[Tensor, "B H N d"], v: Float[Tensor, "B H N d"]
) -> Float[Tensor, "B H N d"]:
    """Attention written out: torch's fused kernel takes twice as long to train on a CPU at these lengths."""
    return (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(-1) @ v


class Velocity(NamedTuple):
    """One velocity a modality, shapes as the latents."""

    video: Tensor  # (B, L, V)
    audio: Tensor  # (B, L, A)


class _Out(nn.Module):
    """The last modulation and projection of one modality; it starts at zero."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.modulate = nn.Linear(width, 2 * width)
        self.project = nn.Linear(width, dim)
        for layer in (self.modulate, self.project):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        scale, shift = self.modulate(F.silu(c))[:, None].chunk(2, dim=-1)
        return self.project(F.layer_norm(h, (h.shape[-1],)) * (1 + scale) + shift)


class WorldJointDiT(nn.Module):
    """v(video, audio, t | caption, scene): both modalities attend to each other on one clock.

    `patch` latent frames of a modality are a token. Picture and sound of one moment have the same rotary
    position, so that "at the same time" needs no learning. An all-zero caption is the null condition. The
    scene is the average picture of the clip, and the layers see and predict what differs from it, which is
    what moves. They predict the data, which lie on few dimensions, and the velocity is what leads there,
    (data − x) / (1 − t): no width is spent on carrying the noise to the output. Near t = 1 the divisor is
    held, or small errors would be loud there.
    """

    def __init__(
        self,
        video_dim: int = 144,
        audio_dim: int = 32,
        cond_dim: int = 64,
        width: int = 192,
        depth: int = 6,
        heads: int = 3,
        patch: int = 2,
    ) -> None:
        super().__init__()
        self.width, self.patch = width, patch
        self.scene_in = nn.Linear(video_dim, width)
        video_dim, audio_dim = patch * video_dim, patch * audio_dim
        self.video_in, self.audio_in = nn.Linear(video_dim, width), nn.Linear(audio_dim, width)
        self.modality = nn.Parameter(torch.randn(2, width) / width**0.5)
        self.time = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))
        self.text = nn.Sequential(nn.Linear(cond_dim, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Block(width, heads, attend) for _ in range(depth))
        self.video_out, self.audio_out = _Out(width, video_dim), _Out(width, audio_dim)

    def forward(
        self,
        video: Float[Tensor, "B L V"],
        audio: Float[Tensor, "B L A"],
        t: Float[Tensor, " B"],
        text: Float[Tensor, "B C"],
        scene: Float[Tensor, "B V"],
        t_audio: Float[Tensor, " B"] | None = None,
    ) -> Velocity:
        """The velocities at (video, audio, t); in training sound may be at a time of its own, `t_audio`."""
        t_audio = t if t_audio is None else t_audio
        times = torch.cat([time_embedding(part, self.width) for part in (t, t_audio)], dim=1)
        c = self.time(times.to(video.dtype)) + self.text(text)
        place, moving = self.scene_in(scene)[:, None], video - t[:, None, None] * scene[:, None]
        seen, heard = (x.unflatten(1, (-1, self.patch)).flatten(2) for x in (moving, audio))
        h = torch.cat(
            [self.video_in(seen) + self.modality[0], self.audio_in(heard) + self.modality[1]], dim=1
        )
        h = h + place
        clock = torch.arange(seen.shape[1], device=video.device).repeat(2)
        for block in self.blocks:
            h = block(h, c, clock)
        ends = [out(x, c) for out, x in zip((self.video_out, self.audio_out), h.chunk(2, dim=1))]
        seen, heard = (x.unflatten(2, (self.patch, -1)).flatten(1, 2) for x in ends)  # (B, L, ...)
        left, left_audio = ((1 - part).clamp(min=LEAST_LEFT)[:, None, None] for part in (t, t_audio))
        return Velocity(scene[:, None] + (seen - moving) / left, (heard - audio) / left_audio)
