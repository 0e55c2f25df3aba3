"""The convention of flow matching in this package, and fixed-step solvers.

    t = 0 is noise, t = 1 is data:   x_t = (1 - t) x0 + t x1,   v = x1 - x0

Models with the reverse convention (LTX-2, Ovi, SD3) flip time and sign in their adapter, and only there.

Letters: B batch, L latent frames, D channels, x0 noise, x1 data, v velocity, t time in [0, 1].
Latents and velocities are `dict[str, Tensor]` keyed by modality, `{"audio": (B, L, D)}`; a joint model adds
`"video"` with another row shape, so annotations name only the batch. `t` is (B,); these functions broadcast
it, callers never do.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Float32
from torch import Tensor

Latents = dict[str, Float[Tensor, "B ..."]]
VelocityFn = Callable[[Latents, Float[Tensor, " B"]], Latents]
Solver = Literal["euler", "midpoint", "rk4"]


def expand(t: Tensor, like: Tensor) -> Tensor:
    """Reshape `t` (B,) to broadcast over `like` (B, ...)."""
    assert t.shape == like.shape[:1], f"t is {tuple(t.shape)} for a batch of {like.shape[0]}"
    return t.reshape(-1, *[1] * (like.ndim - 1))


def interpolate(x0: Latents, x1: Latents, t: Float[Tensor, " B"]) -> Latents:
    """Return x_t = (1 - t) x0 + t x1 for every modality."""
    return {key: (1 - expand(t, x1[key])) * x0[key] + expand(t, x1[key]) * x1[key] for key in x1}


def target_velocity(x0: Latents, x1: Latents) -> Latents:
    """Return v = x1 - x0, the straight path's velocity, for every modality."""
    return {key: x1[key] - x0[key] for key in x1}


def squared_error(
    prediction: Float[Tensor, " B *row"], target: Float[Tensor, " B *row"]
) -> Float32[Tensor, " B"]:
    """Average the squared velocity error over ALL latent elements, in float32: (B, ...) -> (B,).

    β = 600 is meant for this mean scale (β_sum = β / D). In bf16 the error would lose the differences of 1e-3
    from which preferences are learned.
    """
    error = (prediction.float() - target.float()).square().flatten(1).mean(1)
    assert error.shape == prediction.shape[:1]
    return error


def repeated(x: Latents, t: Float[Tensor, " B"], rows: int) -> tuple[dict[str, Tensor], Tensor]:
    """Repeat `x` and `t` of B rows until there are `rows`, a multiple of B."""
    if rows == len(t):
        return x, t
    assert rows % len(t) == 0, f"{len(t)} rows of x_t do not go into {rows} rows of conditions"
    times = rows // len(t)
    return {key: torch.cat([value] * times) for key, value in x.items()}, torch.cat([t] * times)


def guide(v: Latents, v_null: Latents, guidance_scale: float) -> Latents:
    """Apply classifier-free guidance: v_null + s (v - v_null), for every modality."""
    return {key: v_null[key] + guidance_scale * (v[key] - v_null[key]) for key in v}


def guidance_passes(guidance_scale: float) -> int:
    """Count the network passes of one row that a guided velocity takes: 1 up to a scale of 1, else 2."""
    return 1 if guidance_scale <= 1.0 else 2


def integrate(
    velocity: VelocityFn,
    x0: Latents,
    num_steps: int,
    solver: Solver = "euler",
    times: Sequence[float] | None = None,
) -> Latents:
    """Follow dx/dt = v from noise (t = 0) to data (t = 1) in `num_steps` steps, in float32.

    By default steps are equal, at exactly `torch.linspace`'s times as in the published samplers: a network
    that multiplies t by 10000 is sensitive to the difference from i / num_steps. `times` (num_steps + 1)
    gives other times.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, found {num_steps}")
    step = {"euler": _euler, "midpoint": _midpoint, "rk4": _rk4}.get(solver)
    if step is None:
        raise ValueError(f"solver is euler, midpoint or rk4, found {solver!r}")
    x = x0
    batch = next(iter(x0.values())).shape[0]
    device = next(iter(x0.values())).device
    equal = torch.linspace(0, 1, num_steps + 1, dtype=torch.float32)
    for now, then in itertools.pairwise(equal if times is None else torch.tensor(times)):
        x = step(velocity, x, now.expand(batch).to(device), float(then - now))
    return x


def _axpy(x: Latents, a: float, v: Latents) -> Latents:
    return {key: x[key] + a * v[key].float() for key in x}


def _euler(velocity: VelocityFn, x: Latents, t: Tensor, dt: float) -> Latents:
    return _axpy(x, dt, velocity(x, t))


def _midpoint(velocity: VelocityFn, x: Latents, t: Tensor, dt: float) -> Latents:
    half = _axpy(x, dt / 2, velocity(x, t))
    return _axpy(x, dt, velocity(half, t + dt / 2))


def _rk4(velocity: VelocityFn, x: Latents, t: Tensor, dt: float) -> Latents:
    k1 = velocity(x, t)
    k2 = velocity(_axpy(x, dt / 2, k1), t + dt / 2)
    k3 = velocity(_axpy(x, dt / 2, k2), t + dt / 2)
    k4 = velocity(_axpy(x, dt, k3), t + dt)
    mean = {key: (k1[key] + 2 * k2[key] + 2 * k3[key] + k4[key]) / 6 for key in x}
    return _axpy(x, dt, mean)


def seed_of(*parts: int | str) -> int:
    """Hash `parts` to a 63-bit seed, so that randomness is a function of (seed, step) or (seed, item)."""
    text = "/".join(str(p) for p in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_of(*parts: int | str) -> torch.Generator:
    """Return a CPU generator seeded by `seed_of(*parts)`; CPU draws are the same for every device."""
    return torch.Generator().manual_seed(seed_of(*parts))


def noise_like_rows(shapes: dict[str, tuple[int, ...]], seeds: Sequence[int]) -> Latents:
    """Draw standard normal x0 with one seed per row: `shapes` are per row, the result is (B, *shape).

    Row i depends only on seeds[i], so one candidate can be made again without its batch.
    """
    rows: dict[str, list[Tensor]] = {key: [] for key in shapes}
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        for key in sorted(shapes):
            rows[key].append(torch.randn(shapes[key], generator=generator))
    return {key: torch.stack(values) for key, values in rows.items()}


def sample_times(
    num: int, generator: torch.Generator, distribution: Literal["uniform", "logit_normal"] = "uniform"
) -> Float32[Tensor, " {num}"]:
    """Draw training times (num,), float32. Uniform draws are stratified: one per stratum, in random order."""
    if distribution == "uniform":
        jitter = torch.rand(num, generator=generator)
        order = torch.randperm(num, generator=generator)
        return ((torch.arange(num) + jitter) / num)[order]
    if distribution == "logit_normal":
        return torch.sigmoid(torch.randn(num, generator=generator))
    raise ValueError(f"time distribution is uniform or logit_normal, found {distribution!r}")
