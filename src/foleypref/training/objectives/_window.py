"""A sampler with noise in a window of its steps: which steps these are, and the samples' way through them.

Letters: B samples, W steps of the window.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from foleypref.flow.convention import Latents, VelocityFn
from foleypref.flow.sde import Transition


class Window(NamedTuple):
    """A sampler whose steps `first` to `last` - 1 have noise in them; the others follow the ODE."""

    times: list[float]  # from 0 to 1
    first: int
    last: int

    @property
    def steps(self) -> list[tuple[float, float]]:
        """(t, next t) of the steps with noise."""
        return list(pairwise(self.times[self.first : self.last + 1]))


def moving_window(generator: torch.Generator, num_steps: int, width: int, latest_start: float) -> Window:
    """Draw a window of `width` of `num_steps` equal steps that starts in the first share `latest_start`."""
    latest = min(num_steps - width, int(latest_start * num_steps))
    first = int(torch.randint(latest + 1, (), generator=generator))
    return Window(torch.linspace(0, 1, num_steps + 1).tolist(), first, first + width)


class Trajectory(NamedTuple):
    """Samples and their way through the window: W + 1 places, and the log-density of each step."""

    path: list[Latents]
    log_prob: Float[Tensor, "B W"]
    samples: Latents


@torch.no_grad()
def sample_with_noise(
    x: Latents,
    window: Window,
    ode: VelocityFn,
    step: Callable[[Latents, float, float], Transition],
    *,
    noise: Callable[[int], Latents],
) -> Trajectory:
    """Sample from noise x in float32: Euler steps along `ode`, and `step(x, t, dt)` inside the window.

    `noise(index)` is the noise that step `index` adds.
    """
    path, log_probs = [], []
    for index, (t, t_next) in enumerate(pairwise(window.times)):
        if window.first <= index < window.last:
            path.append(x)
            with torch.enable_grad():  # as in the loss: some networks compute differently without
                transition = step(x, t, t_next - t)
            x = {key: value.detach() for key, value in transition.sample(noise(index)).items()}
            log_probs.append(transition.log_prob(x).detach())
        else:
            v = ode(x, times_like(x, t))
            x = {key: x[key] + (t_next - t) * v[key].float() for key in x}
        if index == window.last - 1:
            path.append(x)
    return Trajectory(path, torch.stack(log_probs, dim=1), x)


def times_like(x: Latents, t: float) -> Float[Tensor, " B"]:
    """Return the time t for every row of x."""
    like = next(iter(x.values()))
    return torch.full((len(like),), t, dtype=torch.float32, device=like.device)
