"""The flow's convention against closed forms: straight paths, known integrals, a Gaussian flow."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from foleypref.flow import convention as flow
from foleypref.flow.convention import Latents
from foleypref.flow.solvers import passes_per_step

SHAPES = {"audio": (5, 3), "video": (2, 4, 2)}


def _pair(batch: int = 4) -> tuple[Latents, Latents]:
    return flow.noise_like_rows(SHAPES, range(batch)), flow.noise_like_rows(SHAPES, range(100, 100 + batch))


def test_interpolate_has_noise_at_0_and_data_at_1() -> None:
    x0, x1 = _pair()
    t = torch.tensor([0.0, 1.0, 0.25, 0.5])
    x_t = flow.interpolate(x0, x1, t)
    for key in SHAPES:
        assert torch.equal(x_t[key][0], x0[key][0])
        assert torch.equal(x_t[key][1], x1[key][1])
        torch.testing.assert_close(x_t[key][2], 0.75 * x0[key][2] + 0.25 * x1[key][2])


def test_target_velocity_points_from_noise_to_data() -> None:
    x0, x1 = _pair()
    v = flow.target_velocity(x0, x1)
    later = flow.interpolate(x0, x1, torch.full((4,), 0.5 + 1e-3))
    now = flow.interpolate(x0, x1, torch.full((4,), 0.5))
    for key in SHAPES:
        torch.testing.assert_close((later[key] - now[key]) / 1e-3, v[key], atol=1e-3, rtol=0)


def test_expand_refuses_a_time_of_another_batch() -> None:
    with pytest.raises(AssertionError, match="batch of 4"):
        flow.expand(torch.zeros(3), torch.zeros(4, 2))


@pytest.mark.parametrize("shape", [(3, 7), (3, 5, 2), (3, 2, 4, 3, 2)])
def test_squared_error_is_the_mean_over_every_dimension_but_the_batch(shape: tuple[int, ...]) -> None:
    prediction, target = torch.randn(shape), torch.randn(shape)
    expected = [((prediction[i] - target[i]) ** 2).mean() for i in range(3)]
    error = flow.squared_error(prediction, target)
    assert error.shape == (3,)
    torch.testing.assert_close(error, torch.stack(expected))


def test_squared_error_of_bf16_is_float32() -> None:
    target = torch.zeros(2, 1000)
    prediction = torch.full((2, 1000), 1.0 + 2**-7).bfloat16()
    error = flow.squared_error(prediction, target)
    assert error.dtype == torch.float32
    torch.testing.assert_close(error, torch.full((2,), (1.0 + 2**-7) ** 2))


@pytest.mark.parametrize("solver", ["euler", "midpoint", "rk4"])
@pytest.mark.parametrize("num_steps", [1, 7])
def test_every_solver_is_exact_on_a_straight_path(solver: flow.Solver, num_steps: int) -> None:
    x0, x1 = _pair()
    found = flow.integrate(lambda x, t: flow.target_velocity(x0, x1), x0, num_steps, solver)
    for key in SHAPES:
        torch.testing.assert_close(found[key], x1[key], atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("solver", ["euler", "midpoint", "rk4"])
def test_calls_a_step_are_as_stated(solver: flow.Solver) -> None:
    times: list[float] = []

    def velocity(x: Latents, t: Tensor) -> Latents:
        times.append(t[0].item())
        return x

    flow.integrate(velocity, {"audio": torch.ones(2, 1)}, 3, solver)
    assert len(times) == 3 * passes_per_step(solver)
    assert min(times) == 0.0
    assert max(times) <= 1.0 + 1e-6


def _end(solver: flow.Solver, num_steps: int, rate: str) -> float:
    """Where x(0) = 1 ends under dx/dt = 3t² or dx/dt = x."""

    def velocity(x: Latents, t: Tensor) -> Latents:
        return {"audio": 3 * flow.expand(t, x["audio"]) ** 2} if rate == "3t²" else x

    return flow.integrate(velocity, {"audio": torch.ones(1, 1)}, num_steps, solver)["audio"].item()


def test_end_points_of_3t_squared() -> None:
    n = 4  # left Riemann sum and midpoint sum of 3t² have closed forms; Simpson's rule (rk4) is exact
    assert _end("euler", n, "3t²") == pytest.approx(1 + (n - 1) * (2 * n - 1) / (2 * n**2), abs=1e-6)
    assert _end("midpoint", n, "3t²") == pytest.approx(2 - 1 / (4 * n**2), abs=1e-6)
    assert _end("rk4", n, "3t²") == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_orders_of_convergence(solver: flow.Solver, order: int) -> None:
    coarse, fine = (abs(_end(solver, n, "x") - math.e) for n in ((2, 4) if order == 4 else (16, 32)))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.35)


def test_integrate_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="at least 1, found 0"):
        flow.integrate(lambda x, t: x, {"audio": torch.ones(1, 1)}, 0)
    with pytest.raises(ValueError, match="found 'heun'"):
        flow.integrate(lambda x, t: x, {"audio": torch.ones(1, 1)}, 1, "heun")  # type: ignore[arg-type]


def test_guidance_scale_1_is_the_conditional_and_0_the_null() -> None:
    v, v_null = _pair()
    for key in SHAPES:
        torch.testing.assert_close(flow.guide(v, v_null, 1.0)[key], v[key])
        assert torch.equal(flow.guide(v, v_null, 0.0)[key], v_null[key])
        expected = v_null[key] + 4.5 * (v[key] - v_null[key])
        torch.testing.assert_close(flow.guide(v, v_null, 4.5)[key], expected)


def test_noise_rows_depend_on_their_seed_alone() -> None:
    together = flow.noise_like_rows(SHAPES, [7, 8, 9])
    alone = flow.noise_like_rows(SHAPES, [8])
    for key, shape in SHAPES.items():
        assert together[key].shape == (3, *shape)
        assert torch.equal(together[key][1], alone[key][0])
        assert not torch.equal(together[key][0], together[key][1])


def test_seed_of_is_a_fixed_function() -> None:
    assert flow.seed_of(3, "noise", 4) == 7150337937549135318
    assert flow.seed_of(1, 23) != flow.seed_of(12, 3)
    assert 0 <= flow.seed_of("x") < 2**63


def test_uniform_times_are_stratified_and_in_random_order() -> None:
    t = flow.sample_times(64, flow.generator_of("t"))
    assert sorted((t * 64).long().tolist()) == list(range(64))
    assert t.tolist() != sorted(t.tolist())
    assert torch.equal(t, flow.sample_times(64, flow.generator_of("t")))


def test_logit_normal_times_have_the_right_quartiles() -> None:
    t = flow.sample_times(20_000, flow.generator_of("t"), "logit_normal")
    expected = torch.sigmoid(torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor([0.25, 0.5, 0.75])))
    torch.testing.assert_close(t.quantile(torch.tensor([0.25, 0.5, 0.75])), expected, atol=0.01, rtol=0)
