"""Flow-DPO's other losses, β over time, the safeguard of winners, and which noise each side is mixed with."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from foleypref.flow.convention import interpolate, target_velocity
from foleypref.models.tools import frozen_copy
from foleypref.train import train
from foleypref.training.objectives._contrast import (
    contrast,
    gradient_factor,
    loser_scale,
    with_scaled_loser,
)
from foleypref.training.objectives.flow_dpo import FlowDPO
from foleypref.workspace.store import Workspace
from tests.test_train import make_settings, metrics_without_time
from tests.tiny import TinyModel
from tests.training.contexts import laid_out, make_context, pair_setting

BETA = 600.0
ERRORS = torch.tensor([0.995, 1.004, 1.02, 1.0, 1.003, 0.99], dtype=torch.float64)  # w w w l l l
OTHERS = torch.tensor([1.0, 1.0, 1.0, 1.001, 1.001, 1.001], dtype=torch.float64)
MARGINS = -((ERRORS - OTHERS)[:3] - (ERRORS - OTHERS)[3:])  # m = −(Δ_w − Δ_l)


def _graded(loss_type: Any, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Losses (3,) and their gradients (6,) by the errors."""
    errors = ERRORS.clone().requires_grad_()
    loss = contrast(errors, OTHERS, BETA, loss_type, smoothing).loss
    loss.sum().backward()
    assert errors.grad is not None
    return loss.detach(), errors.grad


# -- losses --------------------------------------------------------------------------------------------------


def test_ipo_is_the_published_loss_times_beta_squared() -> None:
    loss, gradient = _graded("ipo")
    torch.testing.assert_close(loss, BETA**2 * (MARGINS / 2 - 1 / (2 * BETA)) ** 2)
    by_winner = -(BETA**2) * (MARGINS / 2 - 1 / (2 * BETA))  # dm/de_w = −1, dm/de_l = +1
    torch.testing.assert_close(gradient, torch.cat([by_winner, -by_winner]))
    reached = torch.tensor([1 - 1 / BETA, 1.0], dtype=torch.float64)  # m = 1/β
    assert contrast(reached, torch.ones(2, dtype=torch.float64), BETA, "ipo").loss.item() < 1e-20


def test_hinge_ends_at_a_logit_of_one() -> None:
    loss, gradient = _graded("hinge")
    logit = BETA / 2 * MARGINS
    assert (logit < 1).tolist() == [False, True, True]
    torch.testing.assert_close(loss, (1 - logit).clamp(min=0))
    expected = torch.where(logit < 1, BETA / 2, 0.0).double()
    torch.testing.assert_close(gradient, torch.cat([expected, -expected]))


def test_smoothing_mixes_the_loss_with_that_of_the_swapped_pair() -> None:
    loss, gradient = _graded("sigmoid", 0.3)
    plain, by_plain = _graded("sigmoid")
    swapped = contrast(ERRORS.roll(3), OTHERS.roll(3), BETA).loss
    torch.testing.assert_close(loss, 0.7 * plain + 0.3 * swapped)
    factor = torch.sigmoid(-BETA / 2 * MARGINS)
    torch.testing.assert_close(gradient[:3], BETA / 2 * (factor - 0.3))
    assert gradient[0] < 0 < by_plain[0]  # a pair that is sure of itself is pushed back


@pytest.mark.parametrize(("loss_type", "at_start"), [("sigmoid", math.log(2)), ("ipo", 0.25), ("hinge", 1.0)])
def test_the_loss_at_the_reference_is_known_a_modality(
    workspace: Workspace, loss_type: Any, at_start: float
) -> None:
    policy, _, batch = pair_setting(workspace, joint=True)
    objective = FlowDPO(loss_type=loss_type)
    loss = objective.loss(policy, frozen_copy(policy), batch).value
    assert loss.item() == pytest.approx(2 * at_start)
    assert objective.initial_loss(policy.spec) == pytest.approx(2 * at_start)


@pytest.mark.parametrize(
    ("loss_type", "smoothing"), [("sigmoid", 0.0), ("sigmoid", 0.1), ("ipo", 0), ("hinge", 0)]
)
def test_the_gradient_factor_is_the_slope_of_the_loss(loss_type: Any, smoothing: float) -> None:
    logit = torch.linspace(-4, 4, 10, dtype=torch.float64).requires_grad_()
    errors = torch.cat([-logit, torch.zeros_like(logit)])  # β = 2: logit = −Δ_w
    contrast(errors, torch.zeros_like(errors), 2.0, loss_type, smoothing).loss.sum().backward()
    assert logit.grad is not None
    factor = gradient_factor(logit.detach(), loss_type, smoothing)
    torch.testing.assert_close(factor.double(), -logit.grad)


def test_smoothing_is_of_the_sigmoid_alone() -> None:
    with pytest.raises(ValueError, match=r"label_smoothing 0\.1 is of loss_type sigmoid, found ipo"):
        FlowDPO(loss_type="ipo", label_smoothing=0.1)


def test_the_schedule_takes_beta_from_nothing_at_noise_to_itself_at_data(workspace: Workspace) -> None:
    policy, reference, batch = pair_setting(workspace)
    batch = dataclasses.replace(batch, t=torch.linspace(0, 1, len(batch.t)))
    plain = FlowDPO(beta=40.0).loss(policy, reference, batch).logs
    weighed = FlowDPO(beta=40.0, beta_schedule="t_squared").loss(policy, reference, batch).logs
    margins = torch.as_tensor(plain["rewards/margins"]) * batch.t**2
    torch.testing.assert_close(torch.as_tensor(weighed["rewards/margins"]), margins)
    torch.testing.assert_close(
        torch.as_tensor(weighed["loss"]), -torch.log(torch.sigmoid(margins)), rtol=1e-4, atol=1e-5
    )


def test_the_summary_says_what_is_not_default() -> None:
    spec = TinyModel().spec
    assert FlowDPO(safeguard=None, noise="shared").summary(spec) == FlowDPO().summary(spec)
    text = FlowDPO(loss_type="ipo", safeguard=0.0, noise="tracked").summary(spec)
    assert text.endswith("; loss_type ipo; safeguard 0.0; noise tracked")


# -- the safeguard -------------------------------------------------------------------------------------------


def test_the_scale_is_the_published_ratio() -> None:
    winner = torch.tensor([[3.0, 4.0], [3.0, 4.0], [3.0, 4.0], [0.0, 1.0]])
    loser = torch.tensor([[6.0, 8.0], [-3.0, 4.0], [3.0, -4.0], [1.0, 0.0]])
    packed = torch.cat([winner, loser])  # products 50, 7, −7, 0; squares 25, 25, 25, 1
    assert loser_scale(packed, 0.0, "pair").tolist() == [0.5, 1.0, 1.0, 1.0]
    torch.testing.assert_close(loser_scale(packed, 0.9, "pair"), torch.tensor([0.05, 2.5 / 7, 1.0, 1.0]))
    assert loser_scale(packed, 1.0, "pair").tolist() == [0.0, 0.0, 1.0, 1.0]
    torch.testing.assert_close(loser_scale(packed, 0.9, "batch"), torch.full((4,), 0.1 * 76 / 50))
    shaped = packed.reshape(8, 2, 1)
    assert torch.equal(loser_scale(shaped, 0.9, "pair"), loser_scale(packed, 0.9, "pair"))


def test_scaling_changes_no_error_and_only_the_losers_gradient() -> None:
    errors = torch.rand(8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    scale = torch.tensor([0.0, 0.25, 0.5, 1.0])
    held = with_scaled_loser(errors, scale)
    assert torch.equal(held, errors)
    weights = torch.arange(1.0, 9.0)
    (held * weights).sum().backward()
    assert torch.equal(errors.grad, weights * torch.cat([torch.ones(4), scale]))


def _output_gradients(mu: float | None, v_w: Tensor, v_l: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """∇e_w and ∇loss (B, D) by one output u that answers both sides."""
    leaf = u.clone().requires_grad_()
    residual = torch.cat([leaf, leaf]) - torch.cat([v_w, v_l])
    errors = residual.square().mean(1)
    guarded = errors if mu is None else with_scaled_loser(errors, loser_scale(residual, mu, "pair"))
    loss = contrast(guarded, errors.detach(), BETA).loss.sum()
    (by_winner,) = torch.autograd.grad(errors[: len(u)].sum(), leaf, retain_graph=True)
    (by_loss,) = torch.autograd.grad(loss, leaf)
    return by_winner, by_loss


@pytest.mark.parametrize("mu", [0.0, 0.6, 1.0])
def test_a_safe_step_lowers_the_winners_error_by_mu_of_what_fitting_it_would(mu: float) -> None:
    generator = torch.Generator().manual_seed(1)
    u, v_w, away = torch.randn(3, 64, 24, generator=generator)
    v_l = u - 3 * (u - v_w) + away  # losers fit worse, in the winners' direction
    by_winner, by_loss = _output_gradients(mu, v_w, v_l, u)
    descent = (by_winner * by_loss).sum(1)  # the rate at which a step down the loss lowers e_w
    alone = BETA / 4 * by_winner.square().sum(1)
    assert (descent >= mu * alone * (1 - 1e-3) - 1e-3).all()
    unsafe = (by_winner * _output_gradients(None, v_w, v_l, u)[1]).sum(1)
    assert (unsafe < 0).float().mean() > 0.9


@pytest.mark.parametrize("scope", ["pair", "batch"])
def test_the_safeguard_leaves_value_and_logs_and_changes_the_gradient(
    workspace: Workspace, scope: Any
) -> None:
    policy, reference, batch = pair_setting(workspace)
    batch = dataclasses.replace(batch, rejected={"audio": 0.4 * batch.chosen["audio"]})

    def run(objective: FlowDPO) -> tuple[float, dict[str, Any], list[Tensor]]:
        policy.network.zero_grad()
        loss = objective.loss(policy, reference, batch)
        loss.value.backward()
        return loss.value.item(), dict(loss.logs), [p.grad.clone() for p in policy.network.parameters()]

    value, logs, gradient = run(FlowDPO(beta=5.0))
    safe_value, safe_logs, safe_gradient = run(FlowDPO(beta=5.0, safeguard=0.5, safeguard_scope=scope))
    scale = safe_logs.pop("flow/safeguard_scale")
    assert value == safe_value
    assert logs.keys() == safe_logs.keys()
    assert all(torch.equal(logs[key], safe_logs[key]) for key in logs)
    assert not all(torch.equal(a, b) for a, b in zip(gradient, safe_gradient))
    assert scale.shape == (8,)
    assert scale.min() < 1
    assert (scale.unique().numel() == 1) == (scope == "batch")


def test_each_modality_has_its_own_scale(workspace: Workspace) -> None:
    policy, reference, batch = pair_setting(workspace, joint=True)
    logs = FlowDPO(safeguard=0.9).loss(policy, reference, batch).logs
    x0 = {key: torch.cat([value, value]) for key, value in batch.x0.items()}
    x1 = {key: torch.cat([batch.chosen[key], batch.rejected[key]]) for key in batch.chosen}
    t, clip = torch.cat([batch.t, batch.t]), torch.cat([batch.conditions["clip"]] * 2)
    v, target = policy.velocity(interpolate(x0, x1, t), t, {"clip": clip}), target_velocity(x0, x1)
    for key in ("audio", "video"):
        expected = loser_scale((v[key] - target[key]).detach(), 0.9, "pair")
        torch.testing.assert_close(logs[f"flow/safeguard_scale/{key}"], expected)
    assert not torch.equal(logs["flow/safeguard_scale/audio"], logs["flow/safeguard_scale/video"])


@pytest.mark.parametrize("changes", [{"safeguard": 0.5}, {"noise": "independent"}, {"noise": "tracked"}])
def test_gradients_do_not_depend_on_how_the_batch_is_shared(
    workspace: Workspace, changes: dict[str, Any]
) -> None:
    policy = TinyModel().load()
    reference, objective = frozen_copy(TinyModel(seed=1).load()), FlowDPO(beta=5.0, **changes)
    whole = make_context(workspace, policy)

    def gradient(size: int, accumulation: int, processes: int) -> Tensor:
        policy.network.zero_grad()
        for rank in range(processes):
            context = laid_out(
                whole,
                per_device_batch_size=size,
                gradient_accumulation_steps=accumulation,
                rank=rank,
                num_processes=processes,
            )
            for batch in objective.batches(context, 3, policy):
                (objective.loss(policy, reference, batch).value / accumulation / processes).backward()
        return torch.cat([p.grad.flatten() for p in policy.network.parameters()])

    expected = gradient(8, 1, 1)
    for shape in ((2, 4, 1), (2, 2, 2)):
        torch.testing.assert_close(gradient(*shape), expected, rtol=1e-3, atol=1e-5)


# -- precomputed reference errors ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"noise": "tracked"},
        {"noise": "independent"},
        {"loss_type": "ipo", "safeguard": 0.5, "beta_schedule": "t_squared"},
    ],
)
def test_a_run_on_stored_reference_errors_is_the_same_run(filled: Workspace, changes: dict[str, Any]) -> None:
    objective = FlowDPO(beta=50.0, **changes)
    live = train(filled, make_settings(run_name="live", objective=objective))
    stored = train(
        filled, make_settings(run_name="stored", objective=objective, precompute_reference_errors=True)
    )
    assert stored.weights.read_bytes() == live.weights.read_bytes()
    assert metrics_without_time(stored.folder) == metrics_without_time(live.folder)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"noise": "tracked"}, False),
        ({"noise": "independent"}, False),
        ({"loss_type": "hinge", "safeguard": 0.0}, True),
        ({"beta_schedule": "t_squared"}, True),
    ],
)
def test_stored_errors_are_shared_exactly_where_the_setting_does_not_shape_them(
    filled: Workspace, changes: dict[str, Any], found: bool
) -> None:
    settings = {"max_steps": 2, "precompute_reference_errors": True}
    train(filled, make_settings(run_name="first", **settings))
    train(filled, make_settings(run_name="second", objective=FlowDPO(**changes), **settings))
    assert len(list((filled.root / "reference_errors").iterdir())) == (1 if found else 2)
