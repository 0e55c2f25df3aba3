"""Stochastic sampling: one step of the flow as a Gaussian with a density, for policy gradients.

    t = 0 is noise, t = 1 is data:   x_t = (1-t) x0 + t x1,   v = x1 - x0,   x̂0 = x - t v,   x̂1 = x + (1-t) v

    flow_sde  mean = x + v dt - σ²/(2(1-t)) x̂0 dt     std = σ √dt      σ = a √((1-t)/t)    (arXiv 2505.05470)
    dance     the same                                 std = η √dt      σ = η               (arXiv 2505.07818)
    cps       mean = t' x̂1 + (1-t') cos(aπ/2) x̂0     std = (1-t') sin(aπ/2)               (arXiv 2509.05952)

flow_sde and dance keep the flow's marginals as steps get short. cps does not: at few steps it adds less noise
and its distribution is narrower. Everything is float32.

Letters: B batch, D elements of a row over all modalities, t' = t + dt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float32
from torch import Tensor

from foleypref.flow.convention import Latents

Variant = Literal["flow_sde", "dance", "cps"]

NOISE_LEVELS: dict[Variant, float] = {"flow_sde": 0.7, "dance": 0.3, "cps": 0.8}
"""The published noise level of each: a, η, a."""


@dataclass(frozen=True)
class Transition:
    """Distribution of a step: N(mean, std²); `weight` multiplies the squared distance in log p."""

    mean: Latents
    std: float
    weight: float  # 1 / (2 std²); 1 for cps, whose "log p" is the negative squared distance
    constant: float  # of log p

    def sample(self, noise: Latents) -> Latents:
        """Return mean + std · noise for every modality."""
        return {key: mean + self.std * noise[key].to(mean) for key, mean in self.mean.items()}

    def log_prob(self, x: Latents) -> Float32[Tensor, " B"]:
        """Return the log-density of x (B, ...), averaged over all D elements: (B,).

        A PPO clip of 1e-4 is meant for the average, not the sum (as in the code of arXiv 2305.13301).
        """
        return self.constant - self.weight * mean_square(x, self.mean)

    def divergence(self, mean: Latents) -> Float32[Tensor, " B"]:
        """Return the KL divergence to the same step around another mean, ‖Δ‖²/(2 std²) averaged: (B,)."""
        return self.weight * mean_square(mean, self.mean)


def transition(
    variant: Variant, v: Latents, x: Latents, t: float, dt: float, noise_level: float
) -> Transition:
    """Return the distribution of the step from x at `t` to `t + dt` along v. ValueError without noise."""
    v, x = ({key: value.float() for key, value in one.items()} for one in (v, x))
    then = min(t + dt, 1.0)  # the last of many steps may end a rounding beyond
    if variant == "cps":
        angle, room = noise_level * math.pi / 2, 1 - then
        data, noise = ({k: x[k] + s * v[k] for k in x} for s in (1 - t, -t))
        mean = {k: then * data[k] + room * math.cos(angle) * noise[k] for k in x}
        return Transition(mean, room * math.sin(angle), 1.0, 0.0)
    sigma = noise_level
    if variant == "flow_sde":
        t_root = max(t, dt)  # at t = 0 the first next t stands under the root
        sigma = noise_level * math.sqrt(max(1 - t_root, 0.0) / t_root)
    pull = sigma**2 / (2 * (1 - t)) * dt
    mean = {k: x[k] + v[k] * dt - pull * (x[k] - t * v[k]) for k in x}
    std = sigma * math.sqrt(dt)
    if std == 0:  # a single step from noise to data
        raise ValueError(f"{variant} has no noise in a step from t = {t:g} to {then:g}; take more steps")
    return Transition(mean, std, 1 / (2 * std**2), -math.log(std) - 0.5 * math.log(2 * math.pi))


def mean_square(a: Latents, b: Latents) -> Float32[Tensor, " B"]:
    """Average (a - b)² over all elements of all modalities, in float32: (B,)."""
    parts = [(a[key].float() - b[key].float()).square().flatten(1) for key in sorted(a)]
    return torch.cat(parts, dim=1).mean(1)
