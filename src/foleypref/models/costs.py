"""The cost of a model for one clip: floating-point operations, counted on the real networks, and bytes.

Counting runs on the meta device (shapes without memory), so it needs no weights and takes a second. It counts
matrix products, convolutions and attention, which are nearly all of the work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from foleypref.published.mmaudio_audio import AudioSizes, empty_vocoder

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


def count(run: Callable[[], object], *, grad: bool = False) -> float:
    """Count the TFLOP that calling `run` takes, by default without recording for gradients."""
    with torch.set_grad_enabled(grad), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 1e12


def meta_tensor(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a tensor that has a shape and no memory."""
    return torch.zeros(shape, device=META, dtype=dtype)


def count_pair(velocity: Callable[[], Tensor]) -> float:
    """Count the TFLOP of a Flow-DPO pair, given `velocity` of its two rows.

    The policy runs forward and backward, the reference only forward.
    """
    return count(velocity) + count(lambda: velocity().sum().backward(), grad=True)


def count_codec(vae: Any, sizes: AudioSizes, channels: int, latents: int) -> tuple[float, float]:
    """Count (decoding to sound, encoding) of `latents` frames of an autoencoder over mel frames.

    Computing the mel costs little and is left out.
    """
    vocoder, mel = empty_vocoder(sizes), meta_tensor(1, sizes.num_mels, 2 * latents)
    decoding = count(lambda: vae.decode(meta_tensor(1, channels, latents))) + count(lambda: vocoder(mel))
    return decoding, count(lambda: vae.encode(mel))
