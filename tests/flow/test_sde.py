"""Steps with noise against an exact 1-D flow: the distributions they reach, their densities and distances."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from foleypref.flow import convention as flow
from foleypref.flow.convention import Latents
from foleypref.flow.sde import NOISE_LEVELS, Transition, Variant, transition

MEAN, STD = 1.3, 0.4  # of the data of a 1-D Gaussian flow
SHAPES = {"audio": (5, 3), "video": (2, 4, 2)}


def _marginal(t: float) -> tuple[float, float]:
    """Mean and variance of x_t."""
    return t * MEAN, (1 - t) ** 2 + (t * STD) ** 2


def _velocity(x: Tensor, t: float) -> Tensor:
    """E[x1 − x0 | x_t = x]."""
    mean, variance = _marginal(t)
    return MEAN + (t * STD**2 - (1 - t)) / variance * (x - mean)


def _step(x: Tensor, t: float, dt: float, variant: Variant) -> Transition:
    return transition(
        variant, {"audio": _velocity(x, t)}, {"audio": x}, t, dt, noise_level=NOISE_LEVELS[variant]
    )


def _moments(
    mean: float, variance: float, t: float, dt: float, variant: Variant | None
) -> tuple[float, float]:
    """One step is affine in x: push mean and variance through it exactly, without sampling. None: the ODE."""
    x = torch.tensor([[0.0], [1.0]])
    if variant is None:
        then, std = x + dt * _velocity(x, t), 0.0
    else:
        step = _step(x, t, dt, variant)
        then, std = step.mean["audio"], step.std
    offset, slope = then[0].item(), (then[1] - then[0]).item()
    return offset + slope * mean, slope**2 * variance + std**2


def _moments_at(t: float, num_steps: int, variant: Variant | None) -> tuple[float, float]:
    """Mean and variance at `t` after steps from standard normal noise."""
    mean, variance = 0.0, 1.0
    for index in range(round(t * num_steps)):
        mean, variance = _moments(mean, variance, index / num_steps, 1 / num_steps, variant)
    return mean, variance


@pytest.mark.parametrize(
    ("variant", "reached"),
    [
        (None, (0.340, 0.375, 0.397)),
        ("flow_sde", (0.381, 0.394, 0.400)),
        ("dance", (0.352, 0.380, 0.398)),
        ("cps", (0.277, 0.300, 0.319)),
    ],
)
def test_samplers_reach_the_known_spread(variant: Variant | None, reached: tuple[float, ...]) -> None:
    for num_steps, std in zip((10, 25, 200), reached, strict=True):
        mean, variance = _moments_at(1.0, num_steps, variant)
        assert mean == pytest.approx(MEAN, abs=1e-4)
        assert math.sqrt(variance) == pytest.approx(std, abs=1.5e-3)


def test_flow_sde_converges_to_the_exact_marginal() -> None:
    # slowly: the first step, whose σ is that of t = dt, adds the same variance however short it is
    errors = []
    for num_steps in (20, 200, 2000):
        mean, variance = _moments_at(0.5, num_steps, "flow_sde")
        assert mean == pytest.approx(_marginal(0.5)[0], abs=1e-4)
        errors.append(abs(variance - _marginal(0.5)[1]))
    assert errors[0] > 3 * errors[1] > 9 * errors[2]


@pytest.mark.parametrize("variant", ["flow_sde", "dance"])
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_one_step_keeps_the_marginal_to_second_order(t: float, variant: Variant) -> None:
    def error(dt: float) -> float:
        found, exact = _moments(*_marginal(t), t, dt, variant), _marginal(t + dt)
        return abs(found[0] - exact[0]) + abs(found[1] - exact[1])

    assert math.log2(error(2e-2) / error(1e-2)) == pytest.approx(2, abs=0.25)


@pytest.mark.parametrize("variant", list(NOISE_LEVELS))
def test_samples_have_the_spread_that_moments_say(variant: Variant) -> None:
    generator, x = flow.generator_of("sde"), torch.randn(4000, 1, generator=flow.generator_of("x0"))
    for index in range(50):
        noise = {"audio": torch.randn(x.shape, generator=generator)}
        x = _step(x, index / 50, 1 / 50, variant).sample(noise)["audio"]
    mean, variance = _moments_at(1.0, 50, variant)
    assert x.mean().item() == pytest.approx(mean, abs=0.03)
    assert x.std().item() == pytest.approx(math.sqrt(variance), abs=0.03)


def _pair(batch: int = 4) -> tuple[Latents, Latents]:
    return flow.noise_like_rows(SHAPES, range(batch)), flow.noise_like_rows(SHAPES, range(100, 100 + batch))


def test_stated_noise_levels() -> None:
    x, v = _pair()
    found = {variant: transition(variant, v, x, 0.5, 0.1, a).std for variant, a in NOISE_LEVELS.items()}
    assert found["flow_sde"] == pytest.approx(0.7 * math.sqrt(0.1))  # √((1 − t)/t) is 1 at t = ½
    assert found["dance"] == pytest.approx(0.3 * math.sqrt(0.1))
    assert found["cps"] == pytest.approx(0.4 * math.sin(0.4 * math.pi))


def test_cps_keeps_the_coefficients() -> None:
    """mean + std ε has the share t' of the data, and a noise part whose squares add up to (1 − t')²."""
    x0, x1 = _pair()
    x, v = flow.interpolate(x0, x1, torch.full((4,), 0.3)), flow.target_velocity(x0, x1)
    step = transition("cps", v, x, 0.3, 0.2, 0.8)
    for key in SHAPES:
        part = step.mean[key] - 0.5 * x1[key]  # of the noise
        torch.testing.assert_close(part, math.sqrt(0.5**2 - step.std**2) * x0[key], atol=1e-5, rtol=1e-4)


def test_log_prob_is_torchs_averaged_over_the_elements_of_all_modalities() -> None:
    x, v = _pair()
    step = transition("flow_sde", v, x, 0.4, 0.1, 0.7)
    there = step.sample(_pair()[1])
    logs = [torch.distributions.Normal(step.mean[k], step.std).log_prob(there[k]).flatten(1) for k in SHAPES]
    torch.testing.assert_close(step.log_prob(there), torch.cat(logs, dim=1).mean(1))
    plain = transition("cps", v, x, 0.4, 0.1, 0.8)
    squares = [(there[k] - plain.mean[k]).square().flatten(1) for k in SHAPES]
    torch.testing.assert_close(plain.log_prob(there), -torch.cat(squares, dim=1).mean(1))


@pytest.mark.parametrize("variant", ["flow_sde", "dance"])
def test_divergence_is_the_kl_of_two_gaussians(variant: Variant) -> None:
    x, v = _pair()
    here = transition(variant, v, x, 0.4, 0.1, 0.7)
    there = transition(variant, {k: 1.1 * value for k, value in v.items()}, x, 0.4, 0.1, 0.7)
    normal = torch.distributions.Normal
    kl = [
        torch.distributions.kl_divergence(
            normal(here.mean[k], here.std), normal(there.mean[k], there.std)
        ).flatten(1)
        for k in SHAPES
    ]
    torch.testing.assert_close(here.divergence(there.mean), torch.cat(kl, dim=1).mean(1))
    assert here.divergence(here.mean).tolist() == [0.0] * 4


def test_a_step_in_low_precision_is_taken_in_float32() -> None:
    x, v = _pair()
    half = transition("flow_sde", {k: value.bfloat16() for k, value in v.items()}, x, 0.4, 0.1, 0.7)
    assert {value.dtype for value in half.mean.values()} == {torch.float32}
    assert half.log_prob(x).dtype == torch.float32


def test_one_step_from_noise_to_data_has_no_noise_to_learn_from() -> None:
    x, v = _pair()
    with pytest.raises(ValueError, match="take more steps"):
        transition("flow_sde", v, x, 0.0, 1.0, 0.7)
