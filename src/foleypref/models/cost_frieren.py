"""What Frieren costs, counted on its networks at real size; the three variants are alike."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from foleypref.models.costs import FLOAT16, META, Cost, count, count_pair, nothing
from foleypref.networks.cavp import CAVP, GROUP, SIDE
from foleypref.networks.frieren import FRAME_LATENTS, RELEASED, Frieren
from foleypref.networks.frieren_vae import FrierenVAE
from foleypref.published.mmaudio_audio import SIZES, empty_vocoder


@lru_cache
def frieren_cost(num_frames: int) -> Cost:
    """For clips of `num_frames` frames of picture (32). Raises ValueError without diffusers."""
    latents, channels, features = FRAME_LATENTS * num_frames, RELEASED["latent_dim"], RELEASED["feature_dim"]
    sizes = SIZES[16000]
    with META:
        network, cavp = Frieren(**RELEASED), CAVP().eval()
        vae: Any = FrierenVAE()
    vocoder = empty_vocoder(sizes)

    def velocity(rows: int, prepared: dict[str, Tensor]) -> Tensor:
        return network(nothing(rows, latents, channels), nothing(rows), prepared)

    given = {rows: {"cavp": nothing(rows, num_frames, features)} for rows in (1, 2)}
    with torch.no_grad():
        prepared = network.prepare_conditions(given[1])
        one = count(lambda: velocity(1, prepared))
        seen = count(lambda: cavp(nothing(1, GROUP, 3, SIDE, SIDE)))
        decoding = count(lambda: vae.decode(nothing(1, channels, latents)))
        decoding += count(lambda: vocoder(nothing(1, sizes.num_mels, 2 * latents)))
        encoding = count(lambda: vae.encode(nothing(1, sizes.num_mels, 2 * latents)))
    return Cost(
        features=seen,
        network_pass=one,
        decoding=decoding,
        encoding=encoding,
        pair=count_pair(lambda: velocity(2, given[2])),
        feature_bytes=FLOAT16 * num_frames * features,
        latent_bytes=FLOAT16 * latents * channels,
        parameters=sum(p.numel() for p in network.parameters()),
    )
