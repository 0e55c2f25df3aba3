"""The cost of Frieren, counted on its networks at real size; the three variants cost the same."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from foleypref.models.costs import FLOAT16, META, Cost, count, count_pair, meta_tensor
from foleypref.networks.cavp import CAVP, GROUP, SIDE
from foleypref.networks.frieren import FRAME_LATENTS, RELEASED, Frieren
from foleypref.networks.frieren_vae import FrierenVAE
from foleypref.published.mmaudio_audio import SIZES, empty_vocoder


@lru_cache
def frieren_cost(num_frames: int) -> Cost:
    """Count the cost of clips of `num_frames` video frames (32). Raises ValueError without diffusers."""
    latents, channels, features = FRAME_LATENTS * num_frames, RELEASED["latent_dim"], RELEASED["feature_dim"]
    sizes = SIZES[16000]
    with META:
        network, cavp = Frieren(**RELEASED), CAVP().eval()
        vae: Any = FrierenVAE()
    vocoder = empty_vocoder(sizes)

    def velocity(rows: int, prepared: dict[str, Tensor]) -> Tensor:
        return network(meta_tensor(rows, latents, channels), meta_tensor(rows), prepared)

    conditions = {rows: {"cavp": meta_tensor(rows, num_frames, features)} for rows in (1, 2)}
    with torch.no_grad():
        prepared = network.prepare_conditions(conditions[1])
        network_pass = count(lambda: velocity(1, prepared))
        features_cost = count(lambda: cavp(meta_tensor(1, GROUP, 3, SIDE, SIDE)))
        decoding = count(lambda: vae.decode(meta_tensor(1, channels, latents)))
        decoding += count(lambda: vocoder(meta_tensor(1, sizes.num_mels, 2 * latents)))
        encoding = count(lambda: vae.encode(meta_tensor(1, sizes.num_mels, 2 * latents)))
    return Cost(
        features=features_cost,
        network_pass=network_pass,
        decoding=decoding,
        encoding=encoding,
        pair=count_pair(lambda: velocity(2, conditions[2])),
        feature_bytes=FLOAT16 * num_frames * features,
        latent_bytes=FLOAT16 * latents * channels,
        parameters=sum(p.numel() for p in network.parameters()),
    )
