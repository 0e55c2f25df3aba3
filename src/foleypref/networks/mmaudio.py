"""MMAudio's flow networks: velocity of audio latents given CLIP frames, Synchformer features and CLIP text.

Letters: B batch, L latent frames, C CLIP frames (8 a second), S sync tokens (8 a segment of 16 overlapping
frames), T text tokens, D width, g global condition, e frame-wise condition, t time with 0 noise and 1 data.
Written from the published description of MMAudio (arXiv 2412.15322); keys and shapes are its checkpoints'.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from foleypref.networks.mmaudio_blocks import (
    GatedMLP,
    JointBlock,
    StreamBlock,
    cache_tensor,
    modulate,
    rotation_table,
)
from foleypref.networks.time_conv import ChannelLastConv1d

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


@cache_tensor
def stretch_index(sync_len: int, latent_len: int) -> Tensor:
    """Return the sync token of every latent frame (L,): floor((i + 0.5) S / L), ratio first, in float32.

    Exact arithmetic picks another token at ties (frames 57 and 172 of 8 s at 44.1 kHz). Computed on the CPU,
    because CUDA may divide by multiplying with a reciprocal.
    """
    num_sync, num_latents = torch.tensor([sync_len, latent_len], dtype=torch.float32, device="cpu")
    ratio = num_sync / num_latents
    return ((torch.arange(latent_len, dtype=torch.float32, device="cpu") + 0.5) * ratio).floor().long()


@cache_tensor
def time_frequencies(dim: int, multiplier: float, device: torch.device) -> Tensor:
    """Return the timestep embedding's frequencies (dim / 2,), float32 and the same on every device."""
    exponents = torch.arange(0, dim, 2, dtype=torch.float32, device="cpu") / dim
    return (1.0 / (10000.0**exponents) * multiplier).to(device)


class TimestepEmbedding(nn.Module):
    """cos and sin of t times fixed frequencies, then an MLP: (B,) -> (B, D)."""

    def __init__(self, dim: int, frequency_dim: int, multiplier: float) -> None:
        super().__init__()
        self.frequency_dim, self.multiplier = frequency_dim, multiplier
        self.mlp = nn.Sequential(nn.Linear(frequency_dim, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        """Embed t (B,), float32 or wider: at v2's 10000 radians, t in bf16 would move the flow by 65 %."""
        assert t.dtype in (torch.float32, torch.float64), f"t is {t.dtype}"
        angles = t.float()[:, None] * time_frequencies(self.frequency_dim, self.multiplier, t.device)
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1).to(dtype))


class FinalLayer(nn.Module):
    """Modulated by the global g, not frame by frame: (B, L, D) -> (B, L, latent_dim)."""

    def __init__(self, dim: int, latent_dim: int) -> None:
        super().__init__()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))
        self.conv = ChannelLastConv1d(dim, latent_dim, 7)

    def forward(self, x: Tensor, silu_g: Tensor) -> Tensor:
        """x (B, L, D), SiLU(g) (B, 1, D)."""
        shift, scale = self.adaLN_modulation[1](silu_g).chunk(2, dim=-1)
        return self.conv(modulate(x, shift, scale))


class Features(NamedTuple):
    """Outputs of the feature extractors: clip (B, C, 1024), sync (B, S, 768), text (B, T, 1024)."""

    clip: Tensor
    sync: Tensor
    text: Tensor


class MMAudio(nn.Module):
    """v(x_t, t | clip, sync, text) in normalised latent space; `prepare` does the work that t does not enter.

    `gradient_checkpointing` recomputes every block in backward: less memory, the same gradients.
    """

    latent_mean: Tensor
    latent_std: Tensor
    empty_string_feat: Tensor

    def __init__(
        self,
        *,
        latent_dim: int,
        hidden_dim: int,
        depth: int,
        fused_depth: int,
        num_heads: int,
        clip_dim: int = 1024,
        sync_dim: int = 768,
        text_dim: int = 1024,
        text_len: int = 77,
        v2: bool = False,
    ) -> None:
        super().__init__()
        dim = hidden_dim
        self.head_dim = dim // num_heads
        self.gradient_checkpointing = False
        self.register_buffer("latent_mean", torch.full((1, 1, latent_dim), float("nan")))
        self.register_buffer("latent_std", torch.full((1, 1, latent_dim), float("nan")))
        self.register_buffer("empty_string_feat", torch.zeros(text_len, text_dim))
        self.empty_clip_feat = nn.Parameter(torch.zeros(1, clip_dim))
        self.empty_sync_feat = nn.Parameter(torch.zeros(1, sync_dim))
        self.sync_pos_emb = nn.Parameter(torch.zeros(1, 1, SEGMENT_TOKENS, sync_dim))

        activation = nn.SiLU if v2 else nn.SELU
        between = [nn.SiLU()] if v2 else []
        self.audio_input_proj = nn.Sequential(
            ChannelLastConv1d(latent_dim, dim, 7), activation(), GatedMLP(dim, 7)
        )
        self.sync_input_proj = nn.Sequential(
            ChannelLastConv1d(sync_dim, dim, 7), activation(), GatedMLP(dim, 3)
        )
        self.clip_input_proj = nn.Sequential(nn.Linear(clip_dim, dim), *between, GatedMLP(dim, 3))
        self.text_input_proj = nn.Sequential(nn.Linear(text_dim, dim), *between, GatedMLP(dim))
        self.clip_cond_proj = nn.Linear(dim, dim)
        self.text_cond_proj = nn.Linear(dim, dim)
        self.global_cond_mlp = GatedMLP(dim)
        self.t_embed = TimestepEmbedding(dim, dim if v2 else 256, 10000.0 if v2 else 1.0)
        num_joint = depth - fused_depth
        self.joint_blocks = nn.ModuleList(
            JointBlock(dim, num_heads, last=i == num_joint - 1) for i in range(num_joint)
        )
        self.fused_blocks = nn.ModuleList(StreamBlock(dim, num_heads, kernel=3) for _ in range(fused_depth))
        self.final_layer = FinalLayer(dim, latent_dim)

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype, in which everything but time and rotations is computed."""
        return self.sync_pos_emb.dtype

    def prepare(self, clip: Tensor, sync: Tensor, text: Tensor) -> dict[str, Tensor]:
        """Project features (shapes as in `Features`) for `forward`.

        Returns clip (B, C, D), sync (B, S, D), text (B, T, D), global (B, D): rows may be indexed and
        concatenated. Raises ValueError for a part of a sync segment.
        """
        if sync.shape[1] % SEGMENT_TOKENS:
            raise ValueError(
                f"sync has {sync.shape[1]} tokens, and a segment has {SEGMENT_TOKENS}: give whole segments"
            )
        clip, sync, text = clip.to(self.dtype), sync.to(self.dtype), text.to(self.dtype)
        sync = (sync.unflatten(1, (-1, SEGMENT_TOKENS)) + self.sync_pos_emb).flatten(1, 2)
        clip, sync, text = self.clip_input_proj(clip), self.sync_input_proj(sync), self.text_input_proj(text)
        summary = self.clip_cond_proj(clip.mean(1)) + self.text_cond_proj(text.mean(1))  # (B, D)
        return {"clip": clip, "sync": sync, "text": text, "global": self.global_cond_mlp(summary)}

    def prepare_conditions(self, conditions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Call `prepare` with null features in the rows where `has_video` or `has_text` (B, 1) is 0."""
        clip, sync, text = conditions["clip"], conditions["sync"], conditions["text"]
        null = self.null_features(len(clip), clip.shape[1], sync.shape[1])
        has_video, has_text = (conditions[key][..., None] > 0 for key in ("has_video", "has_text"))
        return self.prepare(
            torch.where(has_video, clip, null.clip),
            torch.where(has_video, sync, null.sync),
            torch.where(has_text, text, null.text),
        )

    def forward(self, x_t: Tensor, t: Tensor, prepared: dict[str, Tensor]) -> Tensor:
        """x_t (B, L, latent_dim), t (B,) in float32 -> velocity (k B, L, latent_dim), in x_t's dtype.

        `prepared` has k B rows (guidance: k = 2); x_t and t are projected once and repeated for every group
        of B. Unprepared conditions are accepted, because DDP must see all parameters used in one call.
        """
        if "global" not in prepared:
            prepared = self.prepare_conditions(prepared)
        clip, text, sync = prepared["clip"], prepared["text"], prepared["sync"]
        length, device, groups = x_t.shape[1], x_t.device, len(clip) // len(x_t)
        assert len(clip) == groups * len(x_t), f"{len(x_t)} rows of x_t, {len(clip)} of conditions"
        tables = (
            rotation_table(length, self.head_dim, 1.0, device),
            rotation_table(clip.shape[1], self.head_dim, length / clip.shape[1], device),
        )
        x = self.audio_input_proj(x_t.to(self.dtype)).repeat(groups, 1, 1)
        g = (self.t_embed(t, self.dtype).repeat(groups, 1) + prepared["global"])[:, None]  # (k B, 1, D)
        silu_g, silu_e = F.silu(g), F.silu(g + sync)  # e = g + sync is (k B, S, D)
        stretch: Tensor | None = stretch_index(sync.shape[1], length).to(device)
        if torch.is_grad_enabled():  # a gather's gradient adds in no fixed order on a GPU: do it once
            silu_e, stretch = silu_e[:, stretch], None
        for block in self.joint_blocks:
            x, clip, text = self._run(block, (x, clip, text), silu_e, silu_g, tables, stretch)
        for block in self.fused_blocks:
            x = self._run(block, x, silu_e, tables[0], stretch)
        return self.final_layer(x, silu_g).to(x_t.dtype)

    def _run(self, block: nn.Module, *args: Any) -> Any:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *args, use_reentrant=False)
        return block(*args)

    def null_features(self, batch: int, clip_len: int, sync_len: int) -> Features:
        """Return `batch` rows of the learned features for no video and of the embedded empty prompt."""
        return Features(
            self.empty_clip_feat.expand(batch, clip_len, -1),
            self.empty_sync_feat.expand(batch, sync_len, -1),
            self.empty_string_feat.expand(batch, -1, -1),
        )
