"""The cost of an MMAudio variant, counted on its networks at real size."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from foleypref.models.costs import FLOAT16, META, Cost, count, count_pair, meta_tensor
from foleypref.networks.mmaudio import SYNC_FPS, VARIANTS, MMAudio, sequence_lengths
from foleypref.networks.synchformer_visual import SynchformerVisual
from foleypref.published.clip import ClipEncoders, ClipSizes
from foleypref.published.mmaudio_audio import SIZES, empty_vae, empty_vocoder
from foleypref.published.mmaudio_parts import sample_rate_of

TEXT_TOKENS = 77


@lru_cache
def mmaudio_cost(variant: str, seconds: float) -> Cost:
    """Count the cost of clips of `seconds`. Raises ValueError if transformers or diffusers is missing."""
    rate = sample_rate_of(variant)
    n, sizes = sequence_lengths(seconds, rate), VARIANTS[variant.replace("-", "_")]
    with META:
        network = MMAudio(**sizes)

    def velocity(rows: int, prepared: dict[str, Tensor] | None = None) -> Tensor:
        x, t = meta_tensor(rows, n.latent, sizes["latent_dim"]), meta_tensor(rows)
        return network(x, t, prepared or network.prepare(*features(rows)))

    def features(rows: int) -> tuple[Tensor, Tensor, Tensor]:
        return (
            meta_tensor(rows, n.clip, 1024),
            meta_tensor(rows, n.sync, 768),
            meta_tensor(rows, TEXT_TOKENS, 1024),
        )

    with torch.no_grad():
        prepared = network.prepare(*features(1))
        network_pass = count(lambda: velocity(1, prepared))
    feature_numbers = n.clip * 1024 + n.sync * 768 + TEXT_TOKENS * 1024 + 2
    return Cost(
        features=_features(n.clip, int(SYNC_FPS * seconds)),
        network_pass=network_pass,
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
        frames = count(lambda: clip.encode_image(meta_tensor(clip_frames, 3, 384, 384)))
        prompt = count(lambda: clip.encode_text(meta_tensor(1, TEXT_TOKENS, dtype=torch.long)))
        return frames + prompt + count(lambda: sync(meta_tensor(1, sync_frames, 3, 224, 224)))


def _decoding(rate: int, latent_frames: int) -> float:
    sizes = SIZES[rate]
    vae: Any = empty_vae(sizes)
    vocoder = empty_vocoder(sizes)
    with torch.no_grad():
        mel = count(lambda: vae.decode(meta_tensor(1, sizes.latent_dim, latent_frames)))
        return mel + count(lambda: vocoder(meta_tensor(1, sizes.num_mels, 2 * latent_frames)))


def _encoding(rate: int, latent_frames: int) -> float:
    """Count the encoding of mel frames to latents; computing the mel costs little and is left out."""
    sizes = SIZES[rate]
    vae: Any = empty_vae(sizes)
    with torch.no_grad():
        return count(lambda: vae.encode(meta_tensor(1, sizes.num_mels, 2 * latent_frames)))
