"""What an MMAudio variant costs, counted on its networks at real size."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from foleypref.models.costs import FLOAT16, META, Cost, count, count_pair, nothing
from foleypref.networks.mmaudio import MMAudio
from foleypref.networks.mmaudio_sizes import SYNC_FPS, VARIANTS, sequence_lengths
from foleypref.networks.synchformer_visual import SynchformerVisual
from foleypref.published.clip import ClipEncoders, ClipSizes
from foleypref.published.mmaudio_audio import SIZES, empty_vae, empty_vocoder
from foleypref.published.mmaudio_parts import sample_rate_of

TEXT_TOKENS = 77


@lru_cache
def mmaudio_cost(variant: str, seconds: float) -> Cost:
    """For clips of `seconds`. Raises ValueError where transformers or diffusers is not installed."""
    rate = sample_rate_of(variant)
    n, sizes = sequence_lengths(seconds, rate), VARIANTS[variant.replace("-", "_")]
    with META:
        network = MMAudio(**sizes)

    def velocity(rows: int, prepared: dict[str, Tensor] | None = None) -> Tensor:
        x, t = nothing(rows, n.latent, sizes["latent_dim"]), nothing(rows)
        return network(x, t, prepared or network.prepare(*given(rows)))

    def given(rows: int) -> tuple[Tensor, Tensor, Tensor]:
        return (
            nothing(rows, n.clip, 1024),
            nothing(rows, n.sync, 768),
            nothing(rows, TEXT_TOKENS, 1024),
        )

    with torch.no_grad():
        prepared = network.prepare(*given(1))
        one = count(lambda: velocity(1, prepared))
    feature_numbers = n.clip * 1024 + n.sync * 768 + TEXT_TOKENS * 1024 + 2
    return Cost(
        features=_features(n.clip, int(SYNC_FPS * seconds)),
        network_pass=one,
        decoding=_decoding(rate, n.latent),
        encoding=_encoding(rate, n.latent),
        pair=count_pair(lambda: velocity(2)),
        feature_bytes=FLOAT16 * feature_numbers,
        latent_bytes=FLOAT16 * n.latent * sizes["latent_dim"],
        parameters=sum(p.numel() for p in network.parameters()),
    )


def _features(clip_frames: int, sync_frames: int) -> float:
    with META:
        clip, sync = ClipEncoders(ClipSizes()).eval(), SynchformerVisual()
    with torch.no_grad():
        frames = count(lambda: clip.encode_image(nothing(clip_frames, 3, 384, 384)))
        prompt = count(lambda: clip.encode_text(nothing(1, TEXT_TOKENS, dtype=torch.long)))
        return frames + prompt + count(lambda: sync(nothing(1, sync_frames, 3, 224, 224)))


def _decoding(rate: int, latent_frames: int) -> float:
    sizes = SIZES[rate]
    vae: Any = empty_vae(sizes)
    vocoder = empty_vocoder(sizes)
    with torch.no_grad():
        mel = count(lambda: vae.decode(nothing(1, sizes.latent_dim, latent_frames)))
        return mel + count(lambda: vocoder(nothing(1, sizes.num_mels, 2 * latent_frames)))


def _encoding(rate: int, latent_frames: int) -> float:
    """Mel frames to latents; the mel itself is little beside it and not counted."""
    sizes = SIZES[rate]
    vae: Any = empty_vae(sizes)
    with torch.no_grad():
        return count(lambda: vae.encode(nothing(1, sizes.num_mels, 2 * latent_frames)))
