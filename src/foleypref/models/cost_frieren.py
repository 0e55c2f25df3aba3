"""The cost of Frieren, counted on its networks at real size; the three variants cost the same."""

from __future__ import annotations

from functools import lru_cache

import torch

from foleypref.models.costs import FLOAT16, META, Cost, count, count_codec, count_pair, meta_tensor
from foleypref.networks.cavp import CAVP, GROUP, SIDE
from foleypref.networks.frieren import FRAME_LATENTS, RELEASED, Frieren
from foleypref.networks.frieren_vae import FrierenVAE
from foleypref.published.mmaudio_audio import SIZES


@lru_cache
def frieren_cost(num_frames: int) -> Cost:
    """Count the cost of clips of `num_frames` video frames (32). Raises ValueError without diffusers."""
    latents, channels, features = FRAME_LATENTS * num_frames, RELEASED["latent_dim"], RELEASED["feature_dim"]
    with META:
        network, cavp, vae = Frieren(**RELEASED), CAVP().eval(), FrierenVAE()
    x, y = (meta_tensor(rows, latents, channels) for rows in (1, 2))
    conditions, pair = ({"cavp": meta_tensor(rows, num_frames, features)} for rows in (1, 2))
    with torch.no_grad():
        prepared = network.prepare_conditions(conditions)
    decoding, encoding = count_codec(vae, SIZES[16000], channels, latents)
    return Cost(
        features=count(lambda: cavp(meta_tensor(1, GROUP, 3, SIDE, SIDE))),
        network_pass=count(lambda: network(x, meta_tensor(1), prepared)),
        decoding=decoding,
        encoding=encoding,
        pair=count_pair(lambda: network(y, meta_tensor(2), pair)),
        feature_bytes=FLOAT16 * num_frames * features,
        latent_bytes=FLOAT16 * latents * channels,
        parameters=sum(p.numel() for p in network.parameters()),
    )
