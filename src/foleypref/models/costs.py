"""The cost of a model for one clip: floating-point operations, counted on the real networks, and bytes.

Counting runs on the meta device (shapes without memory), so it needs no weights and takes a second. It counts
matrix products, convolutions and attention, which are nearly all of the work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

META = torch.device("meta")
FLOAT16 = 2  # bytes per number of cached features and latents
TRAINED = 16  # bytes per trained parameter: float32 weights, gradients and AdamW's two moments
FROZEN = 4  # bytes per frozen parameter in float32


@dataclass(frozen=True)
class Cost:
    """The price of one clip, one candidate or one pair in TFLOP (1e12 operations), and sizes in bytes."""

    features: float  # computing the conditions of a clip
    network_pass: float  # one row through the flow network, conditions prepared; guidance takes two
    decoding: float  # a candidate's latents to sound and, in a joint model, to pictures
    encoding: float  # a clip's sound (and pictures) to latents, for clips that rules distort
    pair: float  # Flow-DPO: two rows forward and back through the policy, forward through the reference
    feature_bytes: int
    latent_bytes: int
    parameters: int  # of the flow network
    weight_bytes: int = FROZEN  # per frozen parameter (sampling, or the base under LoRA)

    def training_bytes(self, *, adapters: bool) -> int:
        """Return the memory of training without activations: weights, gradients, optimizer and reference.

        With `adapters` only the frozen base counts, because adapters are small.
        """
        return self.parameters * (self.weight_bytes if adapters else TRAINED + FROZEN)


def count(run: Callable[[], object]) -> float:
    """Count the TFLOP that calling `run` takes."""
    counter = FlopCounterMode(display=False)
    with counter:
        run()
    return counter.get_total_flops() / 1e12


def meta_tensor(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a tensor that has a shape and no memory."""
    return torch.zeros(shape, device=META, dtype=dtype)


def count_pair(velocity: Callable[[], Tensor]) -> float:
    """Count the TFLOP of a Flow-DPO pair, given `velocity` of its two rows.

    The policy runs forward and backward, the reference only forward.
    """
    with torch.no_grad():
        reference = count(velocity)
    return reference + count(lambda: velocity().sum().backward())
