"""Golden checks of Audiobox Aesthetics: raw ratings of padded and unpadded windows, names of weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from foleypref.published.aesthetics import (
    AXES,
    NUM_SAMPLES,
    SAMPLE_RATE,
    Aesthetics,
    build_aesthetics,
    num_frames,
    valid_frames,
)
from tests.golden import recipes

Quantities = Iterator[tuple[str, Tensor, Tensor]]

UNSCALED = {"target_transform": {axis: {"mean": 0.0, "std": 1.0} for axis in AXES}}


def official_state(shapes: dict[str, Any]) -> dict[str, Tensor]:
    """Rule B by official key, with the two exceptions that the companion states."""
    state = recipes.scorer_weights({name: torch.zeros(shape) for name, shape in shapes.items()}, "B")
    for name, shape in shapes.items():
        r = recipes.seeded_normal(name, shape)
        if name.endswith("weight_g"):
            state[name] = 1 + 0.1 * r
        elif name.startswith("layer_weights."):
            state[name] = 0.5 * r
    return state


def waves() -> Tensor:
    """The two inputs, 8 s each."""
    return torch.stack([recipes.wave(8, SAMPLE_RATE, 100), recipes.wave(8, SAMPLE_RATE, 110, f0=1760)])


@torch.no_grad()
def aesthetics(path: Path) -> Quantities:
    """Ratings before `target_transform`: of 8 s as they are, and padded with zeros to 10 s."""
    golden = load_file(path)
    shapes = json.loads(path.with_suffix(".json").read_text())["shapes"]
    network = build_aesthetics(official_state(shapes), UNSCALED)
    sound = waves()
    valid = torch.full((len(sound),), sound.shape[1])
    padded = F.pad(sound, (0, NUM_SAMPLES - sound.shape[1]))
    for case, rows in (("nopad8s", sound), ("padded10s", padded)):
        for axis, ours in zip(AXES, network(rows, valid).T):
            yield f"{case}_{axis}", ours, golden.pop(f"{case}_{axis}")
    assert not golden, f"not checked: {sorted(golden)}"


def aesthetics_keys(path: Path) -> Quantities:
    """Every official name is understood; parameters, layers and frames are as many as upstream's."""
    about = json.loads(path.read_text())
    network = empty_network(about["shapes"])
    total = sum(x.numel() for x in network.parameters())
    yield "n_parameters", torch.tensor(total), torch.tensor(about["n_parameters"])
    layers = len(network.layer_weights["CE"])
    yield "n_layer_results", torch.tensor(layers), torch.tensor(about["n_layer_results"])
    yield "frames_10s", torch.tensor(num_frames(NUM_SAMPLES)), torch.tensor(about["frames_10s"])
    valid = torch.tensor([8 * SAMPLE_RATE] * 2)
    yield "valid_frames", valid_frames(valid, NUM_SAMPLES), torch.tensor(about["valid_frames_8s_in_10s"])


def empty_network(shapes: dict[str, Any]) -> Aesthetics:
    """The network of these official names and shapes, without memory for its weights."""
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return build_aesthetics(state, UNSCALED)


CHECKS: dict[str, Callable[[Path], Quantities]] = {
    "scorers_audiobox.safetensors": aesthetics,
    "scorers_audiobox.json": aesthetics_keys,
}
