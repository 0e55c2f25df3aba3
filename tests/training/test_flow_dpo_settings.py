"""Flow-DPO's other losses, β over time, the safeguard of winners, and which noise each side is mixed with."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from foleypref.flow.convention import Latents, expand, integrate, interpolate, seed_of, target_velocity
from foleypref.models.backbones import Conditions
from foleypref.models.tools import frozen_copy, sample_latents
from foleypref.sample import SampleSettings, sample
from foleypref.train import train
from foleypref.training.objectives import TrainContext
from foleypref.training.objectives._contrast import (
    contrast,
    gradient_factor,
    loser_scale,
    with_scaled_loser,
)
from foleypref.training.objectives._pairs import PairBatch
from foleypref.training.objectives.flow_dpo import FlowDPO
from foleypref.workspace.records import GROUND_TRUTH, Candidate, Feature, Pair
from foleypref.workspace.store import Workspace
from tests.test_train import make_settings, metrics_without_time
from tests.tiny import TinyModel, fill_workspace
from tests.training.test_objectives_maths import _setting, make_context

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
    policy, _, batch = _setting(workspace, joint=True)
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
    policy, reference, batch = _setting(workspace)
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
    policy, reference, batch = _setting(workspace)
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
    policy, reference, batch = _setting(workspace, joint=True)
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
            shape = {"per_device_batch_size": size, "gradient_accumulation_steps": accumulation}
            context = dataclasses.replace(whole, rank=rank, num_processes=processes, **shape)
            for batch in objective.batches(context, 3, policy):
                (objective.loss(policy, reference, batch).value / accumulation / processes).backward()
        return torch.cat([p.grad.flatten() for p in policy.network.parameters()])

    expected = gradient(8, 1, 1)
    for shape in ((2, 4, 1), (2, 2, 2)):
        torch.testing.assert_close(gradient(*shape), expected, rtol=1e-3, atol=1e-5)


# -- noise ---------------------------------------------------------------------------------------------------


class Straight(TinyModel):
    """A flow whose every path is straight: x1 = a + s x0, a and s of the clip's condition."""

    def velocity(self, x_t: Latents, t: Tensor, conditions: Conditions) -> Latents:
        """a + (s − 1) x0, where x_t = (1 − t + t s) x0 + t a."""
        found = {}
        for key, x in x_t.items():
            a, s = expand(conditions["clip"][:, 0], x), 0.5 + expand(conditions["clip"][:, 1].abs(), x)
            x0 = (x - expand(t, x) * a) / (1 - expand(t, x) * (1 - s))
            found[key] = a + (s - 1) * x0
        return found


def _sampled(workspace: Workspace, model: TinyModel) -> list[Pair]:
    """Pairs of candidates that the sampling stage made with `model`."""
    fill_workspace(workspace)
    settings = SampleSettings(
        model=model, split="train", num_candidates=2, first_seed=7, num_steps=4, guidance_scale=1.0
    )
    sample(workspace, settings)
    by_clip: dict[str, list[Candidate]] = {}
    for candidate in workspace.read(Candidate):
        if candidate.seed >= 7:
            by_clip.setdefault(candidate.clip_id, []).append(candidate)
    pairs = []
    for clip_id, (first, second) in sorted(by_clip.items()):
        ids = (clip_id, first.candidate_id, second.candidate_id)
        pairs.append(Pair(Pair.make_id(*ids, "auto"), ids[0], "", *ids[1:], 0.9, 0.1, 0.5, "auto"))
    return pairs


def _context_of(workspace: Workspace, pairs: list[Pair], **changes: Any) -> TrainContext:
    context = make_context(Workspace(workspace.root / "other"), TinyModel(), **changes)
    return dataclasses.replace(
        context,
        workspace=workspace,
        pairs=pairs,
        candidates=workspace.by_id(Candidate),
        features={f.item_id: f for f in workspace.read(Feature)},
    )


def test_tracked_noise_is_the_noise_that_made_each_candidate(workspace: Workspace) -> None:
    model = TinyModel().load()
    context = _context_of(workspace, _sampled(workspace, model))
    (batch,) = FlowDPO(noise="tracked").batches(context, 3, model)
    (shared,) = FlowDPO().batches(context, 3, model)
    assert batch.x0_rejected is not None

    def made(x0: Latents) -> Tensor:
        with torch.no_grad():
            return integrate(lambda x, t: model.velocity(x, t, batch.conditions), x0, 4)["audio"]

    # latents are stored in half precision
    torch.testing.assert_close(made(batch.x0), batch.chosen["audio"], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(made(batch.x0_rejected), batch.rejected["audio"], rtol=1e-3, atol=1e-3)
    assert (made(shared.x0) - batch.chosen["audio"]).abs().mean() > 0.1
    assert batch.item_ids == shared.item_ids
    assert torch.equal(batch.t, shared.t)
    seed = context.candidates[batch.pairs[0].chosen].seed
    alone = sample_latents(
        model,
        {"clip": batch.conditions["clip"][:1]},
        [seed_of(seed, batch.pairs[0].clip_id)],
        num_steps=4,
        guidance_scale=1.0,
    )
    torch.testing.assert_close(alone["audio"].detach(), batch.chosen["audio"][:1], rtol=1e-3, atol=1e-3)


def test_a_straight_flow_makes_no_error_on_tracked_noise(workspace: Workspace) -> None:
    model = Straight().load()
    context = _context_of(workspace, _sampled(workspace, model))
    errors = {}
    for noise in ("shared", "independent", "tracked"):
        objective = FlowDPO.model_validate({"noise": noise})
        (batch,) = objective.batches(context, 0, model)
        errors[noise] = objective.reference_errors(model, batch)["audio"]
    assert errors["tracked"].max() < 1e-5
    assert errors["shared"].min() > 1e-2
    assert errors["independent"].min() > 1e-2


def test_a_side_without_a_seed_keeps_the_shared_noise_and_is_counted(workspace: Workspace) -> None:
    policy = TinyModel().load()
    context = make_context(workspace, policy)
    true = {pair.chosen for pair in context.pairs[::2]}
    candidates = {
        key: dataclasses.replace(c, model=GROUND_TRUTH) if key in true else c
        for key, c in context.candidates.items()
    }
    context = dataclasses.replace(context, candidates=candidates)
    objective = FlowDPO(noise="tracked")
    (batch,), (shared,) = (o.batches(context, 1, policy) for o in (objective, FlowDPO()))
    assert batch.x0_rejected is not None
    rows = torch.tensor([pair.chosen in true for pair in batch.pairs])
    assert rows.sum() > 0
    assert torch.equal(batch.x0["audio"][rows], shared.x0["audio"][rows])
    differs = (batch.x0["audio"] != shared.x0["audio"]).flatten(1).all(1)
    assert torch.equal(differs, ~rows)
    assert (batch.x0_rejected["audio"] != shared.x0["audio"]).all()
    logs = objective.loss(policy, frozen_copy(policy), batch).logs
    expected = torch.cat([(~rows).float(), torch.ones(len(rows))])
    assert torch.equal(torch.as_tensor(logs["flow/tracked_frac"]), expected)
    assert "flow/tracked_frac" not in FlowDPO().loss(policy, frozen_copy(policy), shared).logs


def test_independent_noise_leaves_the_chosen_theirs(workspace: Workspace) -> None:
    policy = TinyModel().load()
    context = make_context(workspace, policy)
    (batch,), (shared,) = (FlowDPO(noise=n).batches(context, 1, policy) for n in ("independent", "shared"))
    assert shared.x0_rejected is None
    assert batch.x0_rejected is not None
    assert torch.equal(batch.x0["audio"], shared.x0["audio"])
    assert (batch.x0_rejected["audio"] != batch.x0["audio"]).all()
    assert torch.equal(batch.t, shared.t)


@pytest.mark.parametrize("noise", ["independent", "tracked"])
def test_the_held_out_grid_shares_its_noise_whatever_training_does(workspace: Workspace, noise: Any) -> None:
    policy = TinyModel().load()
    context = make_context(workspace, policy)

    def grids(objective: FlowDPO) -> list[PairBatch]:
        return list(objective.eval_batches(context, policy))

    for here, there in zip(grids(FlowDPO(noise=noise)), grids(FlowDPO()), strict=True):
        assert here.x0_rejected is None
        assert torch.equal(here.x0["audio"], there.x0["audio"])


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
