"""MMAudio's five released networks, and how many tokens of each kind a clip has."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

HOP = {16000: 256, 44100: 512}  # samples per mel frame, by sample rate in Hz; two mel frames make a latent
CLIP_FPS = 8
SYNC_FPS = 25
SYNC_SEGMENT = 16  # frames; a segment starts every 8 frames and gives 8 tokens
SEGMENT_TOKENS = 8

_SMALL: dict[str, Any] = {"hidden_dim": 448, "depth": 12, "fused_depth": 8, "num_heads": 7}
_MEDIUM: dict[str, Any] = {"hidden_dim": 896, "depth": 12, "fused_depth": 8, "num_heads": 14}
_LARGE: dict[str, Any] = {"hidden_dim": 896, "depth": 21, "fused_depth": 14, "num_heads": 14}
VARIANTS: dict[str, dict[str, Any]] = {
    "small_16k": {"latent_dim": 20, **_SMALL},
    "small_44k": {"latent_dim": 40, **_SMALL},
    "medium_44k": {"latent_dim": 40, **_MEDIUM},
    "large_44k": {"latent_dim": 40, **_LARGE},
    "large_44k_v2": {"latent_dim": 40, **_LARGE, "v2": True},
}
"""Constructor arguments of the five released networks."""


class Lengths(NamedTuple):
    """Number of tokens of each kind, and of sound samples that the latents decode to."""

    latent: int
    clip: int
    sync: int
    samples: int


def sequence_lengths(duration_s: float, sample_rate: int) -> Lengths:
    """Count the tokens of `duration_s` seconds at 16000 or 44100 Hz. Raises ValueError under 0.64 s."""
    if sample_rate not in HOP:
        raise ValueError(
            f"sample_rate is 16000 or 44100 Hz, found {sample_rate}: use the rate of the variant"
        )
    segments = math.floor((duration_s * SYNC_FPS - SYNC_SEGMENT) / 8) + 1
    if segments < 1:
        raise ValueError(
            f"duration_s is {duration_s}, and one segment of {SYNC_SEGMENT} frames takes "
            f"{SYNC_SEGMENT / SYNC_FPS} s: give a longer clip"
        )
    latent = math.ceil(duration_s * sample_rate / HOP[sample_rate] / 2)
    return Lengths(
        latent, int(duration_s * CLIP_FPS), segments * SEGMENT_TOKENS, latent * 2 * HOP[sample_rate]
    )
