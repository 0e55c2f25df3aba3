"""The solvers of Frieren's release against closed forms; its own numbers are among the golden ones."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from foleypref.flow import convention as flow
from foleypref.flow import solvers
from foleypref.flow.convention import Latents
from foleypref.flow.solvers import AnySolver, integrate_dopri5, integrate_released_rk4, passes_per_step, solve

ONES = {"audio": torch.ones(2, 3, 4), "video": torch.full((2, 5), 2.0)}


class Counted:
    """A velocity that notes when it is asked."""

    def __init__(self, slope) -> None:  # type: ignore[no-untyped-def]
        self.slope, self.times = slope, list[float]()

    def __call__(self, x: Latents, t: Tensor) -> Latents:
        assert t.shape == (2,)
        assert t.dtype == torch.float32
        self.times.append(float(t[0]))
        return {key: self.slope(value, t.reshape(-1, *[1] * (value.ndim - 1))) for key, value in x.items()}


def test_decay_is_followed_within_the_tolerance_and_at_its_price() -> None:
    errors, calls = [], []
    for tolerance in (1e-2, 1e-4, 1e-6):
        velocity = Counted(lambda x, t: -5 * x)
        found = integrate_dopri5(velocity, ONES, tolerance, tolerance)
        errors.append(float((found["audio"] - math.exp(-5)).abs().max()))
        torch.testing.assert_close(found["video"][:, 0], 2 * found["audio"][:, 0, 0])
        calls.append(len(velocity.times))
    assert errors[0] < 1e-2
    assert errors[1] < 1e-4
    assert errors[2] < 2e-6
    assert errors == sorted(errors, reverse=True)
    assert calls == sorted(calls)
    assert calls[0] < calls[2] < 200


def test_a_fourth_power_of_time_is_exact_in_any_steps() -> None:
    velocity = Counted(lambda x, t: 5 * t**4 + 0 * x)
    found = integrate_dopri5(velocity, ONES, 1e-3, 1e-3)
    torch.testing.assert_close(found["audio"], ONES["audio"] + 1, rtol=1e-6, atol=1e-6)


def test_every_step_is_six_calls_after_the_first_two_and_lands_on_every_stop() -> None:
    velocity = Counted(lambda x, t: torch.cos(3 * t) * x)
    integrate_dopri5(velocity, ONES, num_intervals=3)
    assert (len(velocity.times) - 2) % 6 == 0
    ends = velocity.times[7::6]
    assert ends[-1] == 1.0
    for stop in torch.linspace(0, 1, 4)[1:].tolist():
        assert stop in ends
    assert max(velocity.times) == 1.0


def test_a_jump_in_time_is_found_by_refused_steps() -> None:
    velocity = Counted(lambda x, t: (t > 0.3).float() + 0 * x)
    found = integrate_dopri5(velocity, ONES, 1e-5, 1e-5)
    assert float((found["audio"] - 1.7).abs().max()) < 1e-3
    ends = velocity.times[7::6]
    assert ends != sorted(ends)  # a refused step is taken again, shorter


def test_nothing_that_moves_takes_no_effort() -> None:
    still = Counted(lambda x, t: 0 * x)
    assert torch.equal(integrate_dopri5(still, ONES)["audio"], ONES["audio"])
    assert len(still.times) < 100
    zeros = {"audio": torch.zeros(2, 3)}
    constant = Counted(lambda x, t: torch.ones_like(x))
    torch.testing.assert_close(integrate_dopri5(constant, zeros)["audio"], torch.ones(2, 3))


def test_what_cannot_be_followed_is_said() -> None:
    with pytest.raises(ValueError, match="not finite near t = "):
        integrate_dopri5(lambda x, t: {k: v / 0 - v / 0 for k, v in x.items()}, ONES)
    wild = Counted(lambda x, t: 1e3 * torch.sin(1e4 * x))
    with pytest.raises(ValueError, match=r"has come to t = 0.* after 50 evaluations; raise rtol"):
        integrate_dopri5(wild, ONES, max_evaluations=50)
    for settings in ({"rtol": 0.0, "atol": 0.0}, {"rtol": -1.0}, {"num_intervals": 0}):
        with pytest.raises(ValueError, match=r"must not be negative nor both 0.*found"):
            integrate_dopri5(lambda x, t: x, ONES, **settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1, found 0"):
        integrate_released_rk4(lambda x, t: x, ONES, 0)


def test_slopes_in_bfloat16_are_summed_in_float32() -> None:
    third = torch.tensor(1 / 3).bfloat16()
    for integrate in (integrate_dopri5, lambda v, x: integrate_released_rk4(v, x, 3)):
        found = integrate(lambda x, t: {k: third.expand_as(v) for k, v in x.items()}, ONES)
        assert found["audio"].dtype == torch.float32
        torch.testing.assert_close(found["audio"], ONES["audio"] + third.float())


def test_the_released_rk4_is_late_by_a_quarter_step_and_the_true_one_is_not() -> None:
    def velocity(x: Latents, t: Tensor) -> Latents:
        return {key: 2 * t.reshape(-1, *[1] * (v.ndim - 1)) + 0 * v for key, v in x.items()}

    for num_steps in (1, 4, 10):
        late = integrate_released_rk4(velocity, ONES, num_steps)["audio"]
        torch.testing.assert_close(late, ONES["audio"] + 1 - 1 / (2 * num_steps))
        true = flow.integrate(velocity, ONES, num_steps, "rk4")["audio"]
        torch.testing.assert_close(true, ONES["audio"] + 1)


def test_the_released_rk4_is_the_true_one_where_time_does_not_matter() -> None:
    def velocity(x: Latents, t: Tensor) -> Latents:
        return {key: -v for key, v in x.items()}

    ours, true = integrate_released_rk4(velocity, ONES, 7), flow.integrate(velocity, ONES, 7, "rk4")
    for key in ONES:
        torch.testing.assert_close(ours[key], true[key])


FIXED = [solver for solver in get_args(AnySolver) if solver != "dopri5"]


@pytest.mark.parametrize("solver", FIXED)
@pytest.mark.parametrize("num_steps", [1, 5])
def test_fixed_steps_take_the_passes_that_are_stated(solver: AnySolver, num_steps: int) -> None:
    velocity = Counted(lambda x, t: torch.cos(3 * t) * x)
    solve(velocity, ONES, num_steps, solver)
    assert len(velocity.times) == num_steps * passes_per_step(solver)


@pytest.mark.parametrize("num_steps", [1, 5])
def test_dopri5_takes_the_passes_that_are_stated_for_every_step_and_two_at_the_start(
    num_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, one_step = [], solvers._dopri5_step
    monkeypatch.setattr(solvers, "_dopri5_step", lambda *args: steps.append(1) or one_step(*args))
    velocity = Counted(lambda x, t: torch.cos(3 * t) * x)
    solve(velocity, ONES, num_steps, "dopri5")
    assert len(steps) >= num_steps
    assert len(velocity.times) == 2 + len(steps) * passes_per_step("dopri5")


def test_passes_of_an_unknown_solver_are_refused() -> None:
    with pytest.raises(ValueError, match="one of euler, midpoint, rk4, released_rk4, dopri5, found 'heun'"):
        passes_per_step("heun")
