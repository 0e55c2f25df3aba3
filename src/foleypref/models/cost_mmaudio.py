"""The cost of an MMAudio variant, counted on its networks at real size."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from foleypref.models.costs import FLOAT16, META, Cost, count, count_codec, count_pair, meta_tensor
from foleypref.networks.mmaudio import SYNC_FPS, VARIANTS, MMAudio, sequence_lengths
from foleypref.networks.synchformer_visual import SynchformerVisual
from foleypref.published.clip import ClipEncoders, ClipSizes
from foleypref.published.mmaudio_audio import SIZES, empty_vae
from foleypref.published.mmaudio_parts import sample_rate_of

TEXT_TOKENS = 77


@lru_cache
def mmaudio_cost(variant: str, seconds: float) -> Cost:
    """Count the cost of clips of `seconds`. Raises ValueError if transformers or diffusers is missing."""
    rate = sample_rate_of(variant)
    n, sizes = sequence_lengths(seconds, rate), VARIANTS[variant.replace("-", "_")]
    with META:
        network = MMAudio(**sizes)

    def prepare(rows: int) -> dict[str, Tensor]:
        shapes = (n.clip, 1024), (n.sync, 768), (TEXT_TOKENS, 1024)
        return network.prepare(*(meta_tensor(rows, *shape) for shape in shapes))

    def velocity(conditions: dict[str, Tensor], rows: int) -> Tensor:
        return network(meta_tensor(rows, n.latent, sizes["latent_dim"]), meta_tensor(rows), conditions)

    with torch.no_grad():
        prepared = prepare(1)
    decoding, encoding = count_codec(empty_vae(SIZES[rate]), SIZES[rate], SIZES[rate].latent_dim, n.latent)
    return Cost(
        features=_features(n.clip, int(SYNC_FPS * seconds)),
        network_pass=count(lambda: velocity(prepared, 1)),
        decoding=decoding,
        encoding=encoding,
        pair=count_pair(lambda: velocity(prepare(2), 2)),
        feature_bytes=FLOAT16 * (n.clip * 1024 + n.sync * 768 + TEXT_TOKENS * 1024 + 2),
        latent_bytes=FLOAT16 * n.latent * sizes["latent_dim"],
        parameters=sum(p.numel() for p in network.parameters()),
    )


def _features(clip_frames: int, sync_frames: int) -> float:
    with META:
        clip, sync = ClipEncoders(ClipSizes()).eval(), SynchformerVisual()
    frames = count(lambda: clip.encode_image(meta_tensor(clip_frames, 3, 384, 384)))
    prompt = count(lambda: clip.encode_text(meta_tensor(1, TEXT_TOKENS, dtype=torch.long)))
    return frames + prompt + count(lambda: sync(meta_tensor(1, sync_frames, 3, 224, 224)))
