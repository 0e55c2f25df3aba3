"""An MMAudio of a few thousand random weights: everything of the adapter but the size of its networks.

Weights follow the golden files' rule W1, so two models with the same sizes are the same model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from foleypref.models.backbones import mmaudio as model_file
from foleypref.models.backbones.mmaudio import MMAudio
from foleypref.networks.mmaudio import MMAudio as Network
from foleypref.networks.synchformer_visual import SynchformerVisual, visual_weights
from foleypref.published.clip import ClipEncoders, ClipSizes, load_clip
from foleypref.published.filling import Adapt
from foleypref.published.mmaudio_audio import SIZES, MMAudioCodec, build_codec
from foleypref.published.mmaudio_parts import LatentStatistics, MMAudioParts
from tests.golden import recipes
from tests.golden.check_mmaudio_audio import vae_state, vocoder_state
from tests.golden.check_mmaudio_conditions import open_clip_shapes, synchformer_state

DIMS: dict[str, Any] = {
    "latent_dim": 20, "hidden_dim": 32, "depth": 3, "fused_depth": 1, "num_heads": 2,
    "clip_dim": 24, "sync_dim": 16, "text_dim": 16,
}  # fmt: skip
CLIP = ClipSizes(378, 42, 16, 1, 2, 16, 1, 2, 24, 77, 64)


class TinyParts(MMAudioParts):
    """Random small networks in place of files."""

    def load_network(self, weights: str, dtype: torch.dtype, adapt: Adapt | None = None) -> Network:
        network = Network(**DIMS)
        state = {k: recipes.mmaudio_weight(k, v.shape) for k, v in network.state_dict().items()}
        if weights:
            state = load_file(weights)
        network.load_state_dict(state)
        mean, std = network.latent_mean.clone(), network.latent_std.clone()
        self.statistics, self.feature_dims = LatentStatistics(mean, std), (24, 16, 16)
        if adapt is not None:
            network = cast(Network, adapt(network))
        return network.to(self.device, dtype)

    def network_hashes(self, weights: str, adapter: str) -> str:
        return f"tiny {weights} {adapter}"

    def encoder_hash(self) -> str:
        return "tiny"

    @cached_property
    def codec(self) -> MMAudioCodec:
        sizes = replace(SIZES[16000], hidden_dim=16, vocoder_dim=64)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(SIZES, 16000, sizes)
            return build_codec(16000, vae_state(sizes), vocoder_state(sizes))

    def _load_clip(self) -> ClipEncoders:
        shapes = open_clip_shapes(CLIP)
        return load_clip({k: recipes.mmaudio_weight(k, shape) for k, shape in shapes.items()}, CLIP)

    def _ids(self, prompts: Sequence[str]) -> Tensor:
        rows = [[62, *(ord(c) % 60 for c in prompt[:75]), 63] for prompt in prompts]
        return torch.tensor([row + [0] * (77 - len(row)) for row in rows])

    def _load_sync(self) -> SynchformerVisual:
        network = SynchformerVisual(16, 1, 2)
        network.load_state_dict(visual_weights(synchformer_state(network)))
        return network


def tiny_mmaudio(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> MMAudio:
    """A loaded MMAudio at 16 kHz with small networks; patches the adapter until the test ends."""
    patch_mmaudio(monkeypatch)
    return MMAudio(**{"variant": "small-16k", "duration": 1.0, **settings}).load()


def patch_mmaudio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every MMAudio that is loaded from here on is small."""
    monkeypatch.setattr(model_file, "MMAudioParts", TinyParts)


def official_keys(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a safetensors file."""
    return {key: tuple(value.shape) for key, value in load_file(path).items()}
