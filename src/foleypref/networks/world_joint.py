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

from foleypref.networks.world_dit import Block, time_embedding, zeroed


def attend(
    q: Float[Tensor, "B H N d"], k: Float[Tensor, "B H N d"], v: Float[Tensor, "B H N d"]
) -> Float[Tensor, "B H N d"]:
    """Compute attention without torch's fused kernel, which trains half as fast on a CPU at these lengths."""
    return (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(-1) @ v


class Velocity(NamedTuple):
    """One velocity per modality, in the shapes of the latents."""

    video: Tensor  # (B, L, V)
    audio: Tensor  # (B, L, A)


class _Out(nn.Module):
    """Last modulation and projection of one modality, and a gate for its noisy latents; all zero at first.

    A token has more numbers than the width, so the velocity's share of the token's noise passes by the gate.
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.modulate = zeroed(nn.Linear(width, 2 * width))
        self.project, self.gate = zeroed(nn.Linear(width, dim)), zeroed(nn.Linear(width, dim))

    def forward(self, h: Tensor, c: Tensor, noisy: Tensor) -> Tensor:
        c = F.silu(c)[:, None]
        scale, shift = self.modulate(c).chunk(2, dim=-1)
        return self.project(F.layer_norm(h, (h.shape[-1],)) * (1 + scale) + shift) + self.gate(c) * noisy


class WorldJointDiT(nn.Module):
    """v(video, audio, t | caption, scene): both modalities attend to each other on one clock.

    A token is `patch` latent frames of one modality. Picture and sound of one moment share a rotary position,
    so that "at the same time" needs no learning. An all-zero caption is the null condition. The scene is the
    average picture of the clip; the layers see and predict differences from it, which is what moves. Their
    output is the velocity's residual after the best linear guess from the noisy latents, scaled to unit size
    at every t (`preconditioned_velocity`).
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
        """Return the velocities at (video, audio, t); in training, sound may have its own time `t_audio`."""
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
        h_seen, h_heard = h.chunk(2, dim=1)
        ends = [self.video_out(h_seen, c, seen), self.audio_out(h_heard, c, heard)]
        seen, heard = (x.unflatten(2, (self.patch, -1)).flatten(1, 2) for x in ends)  # (B, L, ...)
        v_video = scene[:, None] + preconditioned_velocity(seen, moving, t)
        return Velocity(v_video, preconditioned_velocity(heard, audio, t_audio))


def preconditioned_velocity(
    output: Float[Tensor, "B L D"], x: Float[Tensor, "B L D"], t: Float[Tensor, " B"]
) -> Float[Tensor, "B L D"]:
    """Return the velocity at x = (1 − t) noise + t data, given a network output of unit size.

    For data and noise of deviation 1, the best linear guess of v = data − noise from x is ((2t − 1) / p) x
    with p = (1 − t)² + t², and its residual has deviation 1 / √p: the preconditioning of arXiv 2206.00364 in
    this convention. No divisor goes to zero, so errors weigh the same at every t.
    """
    t = t[:, None, None]
    power = (1 - t) ** 2 + t**2
    return (2 * t - 1) / power * x + output / power.sqrt()
