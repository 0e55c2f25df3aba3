"""The other solvers of Frieren's release: adaptive dopri5, and an RK4 with unusual stage times.

    t = 0 is noise, t = 1 is data, dx/dt = v, as in `foleypref.flow.convention`

Both reproduce the released sampler (arXiv 2406.00320, through torchdyn 1.0.6). Its Euler is that of
`convention.integrate`, with the same times to the last bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from foleypref.flow.convention import Latents, VelocityFn, integrate

AnySolver = Literal["euler", "midpoint", "rk4", "dopri5", "released_rk4"]
COUPLED = ("dopri5",)
"""Solvers whose steps depend on all rows of a batch, so that every row must be sampled by itself."""

PASSES_PER_STEP: dict[str, int] = {"euler": 1, "midpoint": 2, "rk4": 4, "released_rk4": 4, "dopri5": 6}
"""Velocity calls of one step of every solver; read it by `passes_per_step`, which names unknown solvers."""

Slope = Callable[[Tensor, Latents], Latents]  # the time is a scalar tensor

# Dormand and Prince (1980): times of the stages, weights of the slopes; the last row is the solution.
_NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
# Two thirds of the textbook's error estimate: the fourth-order companion is Shampine's (1986).
_ERROR = tuple(
    2 / 3 * weight for weight in (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
)
_ORDER = 5
_SAFETY, _LEAST, _MOST = 0.9, 0.2, 10.0  # bound the factor between two step sizes


def passes_per_step(solver: str) -> int:
    """Count the velocity calls of one step of a solver. Raises ValueError for an unknown solver.

    For dopri5, whose steps adapt, this is the price of one accepted step. A rejected step costs as much
    again, and each sample has two more calls at its start. Each of `num_steps` intervals takes at least one
    step, so dopri5 spends more than 6 · num_steps calls.
    """
    if solver not in PASSES_PER_STEP:
        raise ValueError(f"solver is one of {', '.join(PASSES_PER_STEP)}, found {solver!r}")
    return PASSES_PER_STEP[solver]


def solve(
    velocity: VelocityFn,
    x0: Latents,
    num_steps: int,
    solver: AnySolver,
    times: Sequence[float] | None = None,
) -> Latents:
    """Follow the flow with the solver of a name; dopri5 must land on the ends of all `num_steps` intervals.

    `times` bound the steps unless they are equal. Raises ValueError for a solver that takes only equal steps.
    """
    if times is not None and solver in ("dopri5", "released_rk4"):
        raise ValueError(f"{solver} takes equal steps, this model's are shifted; use euler, midpoint or rk4")
    if solver == "dopri5":
        return integrate_dopri5(velocity, x0, num_intervals=num_steps)
    if solver == "released_rk4":
        return integrate_released_rk4(velocity, x0, num_steps)
    return integrate(velocity, x0, num_steps, solver, times)


def integrate_released_rk4(velocity: VelocityFn, x0: Latents, num_steps: int) -> Latents:
    """Follow dx/dt = v from t = 0 to 1 in `num_steps` equal steps of the released RK4, in float32.

    Its stages are at t, t, t + dt/2 and t + dt/2, not at the times of the classical method, so a velocity
    that depends on t is followed to first order only. `convention.integrate` has the classical RK4.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, found {num_steps}")
    slope, x = _slope(velocity, x0), x0
    for t, then in itertools.pairwise(torch.linspace(0, 1, num_steps + 1)):
        dt = then - t
        k1 = slope(t, x)
        k2 = slope(t, _moved(x, dt, [0.5], [k1]))
        k3 = slope(t + dt / 2, _moved(x, dt, [0.5], [k2]))
        k4 = slope(t + dt / 2, _moved(x, dt, [1.0], [k3]))
        x = _moved(x, dt, [1 / 6, 1 / 3, 1 / 3, 1 / 6], [k1, k2, k3, k4])
    return x


def integrate_dopri5(
    velocity: VelocityFn,
    x0: Latents,
    rtol: float = 1e-4,
    atol: float = 1e-4,
    *,
    num_intervals: int = 1,
    max_evaluations: int = 10_000,
) -> Latents:
    """Follow dx/dt = v from t = 0 to 1 by Dormand's and Prince's adaptive 5(4) pair, in float32.

    Steps are cut to land on every i / num_intervals. Rows share their steps, so within the tolerances a row
    depends on its batch. A velocity that jumps in t, as Frieren's does, costs many evaluations. Raises
    ValueError after `max_evaluations`, or if the velocity is not finite.
    """
    if rtol < 0 or atol < 0 or rtol + atol == 0 or num_intervals < 1:
        raise ValueError(
            "rtol and atol must not be negative nor both 0, num_intervals must be at least 1; "
            f"found {rtol}, {atol} and {num_intervals}"
        )
    slope, x, t = _slope(velocity, x0, max_evaluations), x0, torch.zeros(())
    k1 = slope(t, x)
    dt = _first_step(slope, x, k1, rtol, atol)
    for stop in torch.linspace(0, 1, num_intervals + 1)[1:]:
        while t < stop:
            full = torch.minimum(dt, 1 - t)
            cut = bool(t + full > stop)
            dt = stop - t if cut else full
            step = _dopri5_step(slope, x, k1, t, dt)
            ratio = _rms(step.error, _scale(x, step.x, rtol, atol))
            if not ratio.isfinite():
                raise ValueError(f"the velocity is not finite near t = {float(t):.4f}; check the weights")
            end = torch.minimum(t + dt, stop)
            if cut:
                dt = full - dt  # the next step starts from the part that was cut off
            dt = dt * _factor(ratio)
            if ratio <= 1:
                t, x, k1 = end, step.x, step.slope
    return x


class _Step(NamedTuple):
    """The end of a step, the slope there, and the estimated error."""

    x: Latents
    slope: Latents
    error: Latents


def _dopri5_step(slope: Slope, x: Latents, k1: Latents, t: Tensor, dt: Tensor) -> _Step:
    slopes, there = [k1], x
    for node, weights in zip(_NODES[1:], _STAGES[1:]):
        there = _moved(x, dt, weights, slopes)
        slopes.append(slope(t + node * dt, there))
    error = _weighted([dt * weight for weight in _ERROR], slopes)
    return _Step(there, slopes[-1], error)


def _first_step(slope: Slope, x: Latents, k1: Latents, rtol: float, atol: float) -> Tensor:
    """Guess the first step size as Hairer, Nørsett and Wanner do (Solving ODEs I, II.4)."""
    scale = _scale(x, x, rtol, atol)
    d0, d1 = _rms(x, scale), _rms(k1, scale)
    h0 = torch.tensor(1e-6) if min(d0, d1) < 1e-5 else 0.01 * d0 / d1
    k2 = slope(h0, _moved(x, h0, [1.0], [k1]))
    d2 = _rms({key: k2[key] - k1[key] for key in k1}, scale) / h0
    steepest = torch.maximum(d1, d2)
    if steepest <= 1e-15:
        return torch.clamp(h0 * 1e-3, min=1e-6)
    return torch.minimum(100 * h0, (0.01 / steepest) ** (1 / (_ORDER + 1)))


def _factor(ratio: Tensor) -> Tensor:
    """Return the next step's length relative to this one's, after an error of `ratio` times the allowed."""
    if ratio == 0:
        return torch.tensor(_MOST)
    return torch.clamp(_SAFETY * ratio ** (-1 / _ORDER), 1.0 if ratio < 1 else _LEAST, _MOST)


def _slope(velocity: VelocityFn, x0: Latents, max_evaluations: int | None = None) -> Slope:
    """Wrap `velocity`: float32, one time for all rows, and ValueError after too many calls."""
    like, calls = next(iter(x0.values())), 0

    def slope(t: Tensor, x: Latents) -> Latents:
        nonlocal calls
        calls += 1
        if max_evaluations is not None and calls > max_evaluations:
            raise ValueError(
                f"dopri5 has come to t = {float(t):.4f} after {max_evaluations} evaluations; raise rtol and "
                "atol, or take a solver with fixed steps"
            )
        return {key: v.float() for key, v in velocity(x, t.expand(len(like)).to(like.device)).items()}

    return slope


def _weighted(weights: Sequence[float | Tensor], slopes: Sequence[Latents]) -> Latents:
    """Return Σ weight · slope, leaving out zero weights."""
    total = {key: weights[0] * k for key, k in slopes[0].items()}
    for weight, slope in zip(weights[1:], slopes[1:]):
        if weight != 0:
            total = {key: value + weight * slope[key] for key, value in total.items()}
    return total


def _moved(x: Latents, dt: Tensor, weights: Sequence[float], slopes: Sequence[Latents]) -> Latents:
    """Return x + dt Σ weight · slope."""
    return {key: x[key] + dt * v for key, v in _weighted(weights, slopes).items()}


def _scale(x: Latents, y: Latents, rtol: float, atol: float) -> Latents:
    """Return the allowed error of every element."""
    return {key: atol + rtol * torch.maximum(x[key].abs(), y[key].abs()) for key in x}


def _rms(x: Latents, scale: Latents) -> Tensor:
    """Return the root mean square of x / scale over all elements and modalities, on the CPU."""
    return torch.cat([(x[key] / scale[key]).flatten() for key in x]).square().mean().sqrt().cpu()
