"""AudioScore's network: Linear–ReLU–Linear over judge scores and validity bits (arXiv 2603.11089, 2.1)."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor, nn


class AudioScoreNetwork(nn.Module):
    """(B, 2K) inputs, K standardised values and K validity bits -> logits (B, 3) of bad, medium, good.

    In float64: it is tiny, and its probabilities then do not depend on how candidates are batched.
    """

    def __init__(self, num_dimensions: int, hidden: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.hidden = nn.Linear(2 * num_dimensions, hidden, dtype=torch.float64)
        self.out = nn.Linear(hidden, 3, dtype=torch.float64)
        with torch.no_grad():
            for layer in (self.hidden, self.out):
                bound = layer.in_features**-0.5
                for parameter in (layer.weight, layer.bias):
                    parameter.uniform_(-bound, bound, generator=generator)

    def forward(self, inputs: Float64[Tensor, "B {self.hidden.in_features}"]) -> Float64[Tensor, "B 3"]:
        """Return logits (B, 3) of bad, medium, good."""
        return self.out(torch.relu(self.hidden(inputs)))
