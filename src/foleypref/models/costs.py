"""What a model costs for one clip: floating-point operations, counted on the real networks, and bytes.

Counting runs on the meta device, shapes without memory, so it needs no weights and takes a second. Matrix
products, convolutions and attention are counted; they are nearly all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

META = torch.device("meta")
FLOAT16 = 2  # bytes: features and latents are kept in it
TRAINED, ADAPTED = 16, 4  # bytes a parameter: float32 weights, gradients and AdamW's two; weights alone


@dataclass(frozen=True)
class Cost:
    """One clip, one candidate or one pair, in TFLOP (1e12 operations); parameters of the flow network."""

    features: float  # the conditions of a clip
    network_pass: float  # one row through the network, conditions prepared; guidance takes two
    decoding: float  # a candidate's latents to sound, and to pictures if it has them
    encoding: float  # a clip's own sound, and pictures, to latents: what rules distort
    pair: float  # Flow-DPO: two rows through the policy and back, and forward through the reference
    feature_bytes: int
    latent_bytes: int
    parameters: int
    weight_bytes: int = ADAPTED  # of a parameter of a network that is not trained: it samples, or is adapted

    def training_bytes(self, *, adapters: bool) -> int:
        """Weights, gradients, optimizer and reference in float32, without activations; adapters are small.

        Adapters leave the network's weights at `weight_bytes` each.
        """
        return self.parameters * (self.weight_bytes if adapters else TRAINED + ADAPTED)


def count(run: Callable[[], object]) -> float:
    """TFLOP of `run`."""
    counter = FlopCounterMode(display=False)
    with counter:
        run()
    return counter.get_total_flops() / 1e12


def nothing(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Shape without memory."""
    return torch.zeros(shape, device=META, dtype=dtype)


def count_pair(velocity: Callable[[], Tensor]) -> float:
    """TFLOP of a Flow-DPO pair by the velocity of its rows: policy and its gradient, reference forward."""
    with torch.no_grad():
        reference = count(velocity)
    return reference + count(lambda: velocity().sum().backward())
