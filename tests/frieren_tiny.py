"""A Frieren of a few thousand random weights: everything of the adapter but the size of its networks.

Weights follow the golden files' rule b, so two models with the same sizes are the same model.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from foleypref.models.backbones import frieren as model_file
from foleypref.models.backbones.frieren import Frieren
from foleypref.networks.cavp import CAVP
from foleypref.networks.frieren import Frieren as Network
from foleypref.networks.frieren_vae import FrierenVAE
from foleypref.published.filling import Adapt
from foleypref.published.frieren_parts import FrierenCodec, FrierenParts
from foleypref.published.mmaudio_audio import SIZES, AudioSizes, build_vocoder
from tests.golden import recipes
from tests.golden.check_frieren import network_of
from tests.golden.check_frieren_parts import filled
from tests.golden.check_mmaudio_audio import kaiser_sinc, vocoder_shapes

NETWORK: dict[str, int] = {
    "latent_dim": 20, "feature_dim": 512, "context_dim": 24, "hidden_dim": 64, "num_heads": 2, "depth": 1,
    "max_len": 300,
}  # fmt: skip
VOCODER: AudioSizes = replace(SIZES[16000], vocoder_dim=64)


def tiny_vae() -> FrierenVAE:
    """The autoencoder at a twelfth of its width."""
    return FrierenVAE(width=32, num_blocks=1)


def tiny_cavp() -> CAVP:
    """CAVP's picture encoder, one block per stage."""
    return CAVP(width=4, depths=(1, 1, 1, 1))


def vocoder_state() -> dict[str, torch.Tensor]:
    """A small vocoder's official file; rule a, for under b its waves are all saturated."""
    return {
        key: kaiser_sinc()
        if key.endswith(".filter")
        else recipes.frieren_weight(key, torch.empty(shape), "a")
        for key, shape in vocoder_shapes(VOCODER).items()
    }


class TinyParts(FrierenParts):
    """Random small networks in place of files."""

    def load_network(self, dtype: torch.dtype, adapt: Adapt | None = None) -> Network:
        network = network_of(NETWORK, "b")
        if self._tuned:
            network.load_state_dict(load_file(self._tuned))
        if adapt is not None:
            network = adapt(network)  # type: ignore[assignment]
        return network.to(self.device, dtype)

    def network_hashes(self, adapter: str) -> str:
        return f"tiny {self.variant} {self._tuned} {adapter}"

    def cavp_hash(self) -> str:
        return "tiny"

    @cached_property
    def codec(self) -> FrierenCodec:
        vocoder = build_vocoder(VOCODER, vocoder_state())
        return FrierenCodec(VOCODER, filled(tiny_vae(), "b").requires_grad_(False), vocoder).eval()

    @cached_property
    def cavp(self) -> CAVP:
        network: CAVP = filled(tiny_cavp(), "b").requires_grad_(False)
        return network


def tiny_frieren(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Frieren:
    """A loaded Frieren with small networks; patches the adapter until the test ends."""
    patch_frieren(monkeypatch)
    return Frieren(**settings).load()


def patch_frieren(monkeypatch: pytest.MonkeyPatch, num_frames: int = 8) -> None:
    """Every Frieren that is loaded from here on is small and makes a quarter of the sound, 2.048 s."""
    monkeypatch.setattr(model_file, "FrierenParts", TinyParts)
    monkeypatch.setattr(model_file, "NUM_FRAMES", num_frames)
