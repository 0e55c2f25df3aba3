"""Flow-DPO's loss against closed forms: known value, both signs, scales, packing, joint models, logs."""

from __future__ import annotations

import math

import pytest
import torch

from foleypref.flow.convention import interpolate, target_velocity
from foleypref.models.tools import frozen_copy
from foleypref.training.log import Meter
from foleypref.training.objectives import Loss
from foleypref.training.objectives._pairs import PairBatch
from foleypref.training.objectives.flow_dpo import FlowDPO, contrast
from foleypref.training.objectives.sft import SFT
from foleypref.workspace.store import Workspace
from tests.tiny import TinyModel
from tests.training.contexts import make_context, pair_setting


def _errors(model: TinyModel, batch: PairBatch, side: str, key: str = "audio") -> torch.Tensor:
    """Return e of one side (B,) in float64, by a separate call of the model."""
    x1 = getattr(batch, side)
    v = model.velocity(interpolate(batch.x0, x1, batch.t), batch.t, batch.conditions)[key]
    target = target_velocity(batch.x0, x1)[key]
    return ((v - target).double() ** 2).flatten(1).mean(1)


def _expected(
    policy: TinyModel, reference: TinyModel, batch: PairBatch, beta: float, key: str
) -> torch.Tensor:
    delta = {
        side: _errors(policy, batch, side, key) - _errors(reference, batch, side, key)
        for side in ("chosen", "rejected")
    }
    return -torch.log(torch.sigmoid(-beta / 2 * (delta["chosen"] - delta["rejected"])))


@pytest.mark.parametrize("joint", [False, True])
def test_loss_is_ln_2_a_modality_when_policy_is_reference(workspace: Workspace, joint: bool) -> None:
    policy, _, batch = pair_setting(workspace, joint=joint)
    loss = FlowDPO().loss(policy, frozen_copy(policy), batch).value
    assert loss.item() == torch.tensor(math.log(2) * (2 if joint else 1)).item()
    assert FlowDPO().initial_loss(policy.spec) == pytest.approx(loss.item())
    assert FlowDPO(winner_weight=0.1).initial_loss(policy.spec) is None


@pytest.mark.parametrize("beta", [1.0, 600.0])
def test_gradient_at_the_reference_is_plus_and_minus_a_quarter_beta(beta: float) -> None:
    errors = torch.tensor([0.7, 0.9], dtype=torch.float64, requires_grad=True)  # chosen, rejected
    contrast(errors, errors.detach(), beta).loss.sum().backward()
    assert errors.grad is not None
    torch.testing.assert_close(errors.grad, torch.tensor([beta / 4, -beta / 4], dtype=torch.float64))


def test_loss_falls_when_the_winner_fits_better_and_when_the_loser_fits_worse() -> None:
    reference = torch.tensor([1.0, 1.0])
    same, winner, loser = (
        contrast(torch.tensor(e), reference, 600.0).loss for e in ([1.0, 1.0], [0.99, 1.0], [1.0, 1.01])
    )
    assert winner < same
    assert loser < same
    torch.testing.assert_close(winner, loser)


def test_loss_stays_finite_for_hopeless_pairs() -> None:
    part = contrast(torch.tensor([50.0, 0.0]), torch.tensor([0.0, 50.0]), 600.0)
    assert part.loss.item() == pytest.approx(600 / 2 * 100)


def test_loss_is_the_bracketed_contrast_of_four_separate_calls(workspace: Workspace) -> None:
    policy, reference, batch = pair_setting(workspace)
    loss = FlowDPO(beta=5.0).loss(policy, reference, batch)
    expected = _expected(policy, reference, batch, 5.0, "audio")
    torch.testing.assert_close(loss.value.double(), expected.mean(), rtol=1e-5, atol=0)
    literal = 5.0 / 2 * (_errors(policy, batch, "chosen") - _errors(reference, batch, "chosen"))
    literal = literal - (_errors(policy, batch, "rejected") - _errors(reference, batch, "rejected"))
    misprint = -torch.log(torch.sigmoid(-literal)).mean()  # the bracket where Eq. 5 prints it
    assert abs(loss.value.item() - misprint.item()) > 0.01


def test_swapping_chosen_and_rejected_flips_the_margin(workspace: Workspace) -> None:
    policy, reference, batch = pair_setting(workspace)
    swapped = PairBatch(**{**vars(batch), "chosen": batch.rejected, "rejected": batch.chosen})
    margins = [FlowDPO().loss(policy, reference, b).logs["rewards/margins"] for b in (batch, swapped)]
    assert margins[0].abs().min() > 0
    torch.testing.assert_close(margins[0], -margins[1], rtol=1e-3, atol=1e-3)


def test_sum_with_beta_over_d_equals_mean_with_beta(workspace: Workspace) -> None:
    policy, reference, batch = pair_setting(workspace)
    d = math.prod(policy.spec.latents["audio"])
    mean = FlowDPO(beta=6.0).loss(policy, reference, batch).value
    by_sum = FlowDPO(beta=6.0 / d, reduction="sum").loss(policy, reference, batch).value
    torch.testing.assert_close(by_sum, mean, rtol=1e-5, atol=0)
    errors, others = torch.rand(2, 16, dtype=torch.float64)
    torch.testing.assert_close(
        contrast(errors * d, others * d, 600.0 / d).loss,
        contrast(errors, others, 600.0).loss,
        rtol=1e-12,
        atol=0,
    )


def test_joint_model_sums_a_sigmoid_a_modality_each_with_its_beta(workspace: Workspace) -> None:
    policy, reference, batch = pair_setting(workspace, joint=True)
    loss = FlowDPO(beta={"audio": 3.0, "video": 9.0}).loss(policy, reference, batch)
    parts = [_expected(policy, reference, batch, b, k) for k, b in (("audio", 3.0), ("video", 9.0))]
    torch.testing.assert_close(loss.value.double(), (parts[0] + parts[1]).mean(), rtol=1e-5, atol=0)
    both = loss.logs["rewards/margins/audio"] + loss.logs["rewards/margins/video"]
    torch.testing.assert_close(loss.logs["rewards/margins"], both)
    with pytest.raises(ValueError, match="also has 'video'"):
        FlowDPO(beta={"audio": 3.0}).loss(policy, reference, batch)


def test_reference_is_called_without_gradient_even_if_it_could_take_one(workspace: Workspace) -> None:
    policy, reference, batch = pair_setting(workspace)
    reference.network.requires_grad_(True)
    FlowDPO().loss(policy, reference, batch).value.backward()
    assert all(parameter.grad is None for parameter in reference.network.parameters())


def test_winner_term_adds_the_policys_winner_error(workspace: Workspace) -> None:
    policy, reference, batch = pair_setting(workspace)
    plain = FlowDPO().loss(policy, reference, batch).value
    anchored = FlowDPO(winner_weight=0.25).loss(policy, reference, batch).value
    expected = 0.25 * _errors(policy, batch, "chosen").mean()
    torch.testing.assert_close((anchored - plain).double(), expected, rtol=1e-3, atol=0)


def test_the_winner_term_pulls_the_policy_towards_the_winners(workspace: Workspace) -> None:
    policy, reference, batch = pair_setting(workspace)
    parameters = list(policy.network.parameters())

    def gradient(value: torch.Tensor) -> torch.Tensor:
        return torch.cat([grad.flatten() for grad in torch.autograd.grad(value, parameters)])

    plain = gradient(FlowDPO(beta=5.0).loss(policy, reference, batch).value)
    anchored = gradient(FlowDPO(beta=5.0, winner_weight=0.25).loss(policy, reference, batch).value)
    expected = gradient(0.25 * _errors(policy, batch, "chosen").float().mean())
    assert expected.norm() > 1e-3
    torch.testing.assert_close(anchored - plain, expected, rtol=1e-3, atol=1e-5)


def test_summary_shows_beta_on_both_scales() -> None:
    spec = TinyModel().spec
    assert FlowDPO().summary(spec) == "flow_dpo: audio β 600 (mean scale), D 24, β/D 25"
    assert (
        FlowDPO(beta=25, reduction="sum").summary(spec) == "flow_dpo: audio β 25 (sum scale), D 24, β·D 600"
    )


def test_sft_fits_the_winners_of_the_batches_that_dpo_meets(workspace: Workspace) -> None:
    policy = TinyModel().load()
    context = make_context(workspace, policy)
    dpo, sft = (o.batches(context, 3, policy)[0] for o in (FlowDPO(), SFT()))
    assert dpo.item_ids == sft.item_ids
    assert torch.equal(dpo.t, sft.t)
    assert torch.equal(dpo.x0["audio"], sft.x0["audio"])
    loss = SFT().loss(policy, None, sft).value
    torch.testing.assert_close(loss.double(), _errors(policy, dpo, "chosen").mean())


def test_dropout_gives_a_pair_the_null_condition_and_leaves_the_rest(workspace: Workspace) -> None:
    policy = TinyModel().load()
    context = make_context(workspace, policy, per_device_batch_size=32)
    plain = FlowDPO().batches(context, 0, policy)[0]
    dropped, again = (FlowDPO(condition_dropout=0.5).batches(context, 0, policy)[0] for _ in range(2))
    assert torch.equal(dropped.conditions["clip"], again.conditions["clip"])
    gone = (dropped.conditions["clip"] == 0).all(1)
    assert 4 < gone.sum() < 28
    assert torch.equal(dropped.conditions["clip"][~gone], plain.conditions["clip"][~gone])
    assert torch.equal(dropped.t, plain.t)
    assert torch.equal(dropped.x0["audio"], plain.x0["audio"])


def test_logs_are_what_their_names_say(workspace: Workspace) -> None:
    policy, reference, batch = pair_setting(workspace)
    logs = FlowDPO(beta=40.0).loss(policy, reference, batch).logs
    delta_w = _errors(policy, batch, "chosen") - _errors(reference, batch, "chosen")
    delta_l = _errors(policy, batch, "rejected") - _errors(reference, batch, "rejected")
    logit = -20 * (delta_w - delta_l)
    expected = {
        "rewards/chosen": -20 * delta_w,
        "rewards/rejected": -20 * delta_l,
        "rewards/margins": logit,
        "rewards/accuracies": (logit > 0).double(),
        "flow/winner_err": _errors(policy, batch, "chosen"),
        "flow/loser_err": _errors(policy, batch, "rejected"),
        "flow/ref_winner_err": _errors(reference, batch, "chosen"),
        "flow/ref_loser_err": _errors(reference, batch, "rejected"),
        "flow/winner_delta": delta_w,
        "flow/loser_delta": delta_l,
        "flow/gradient_factor": torch.sigmoid(-logit),
        "flow/saturated_frac": (logit.abs() > 3).double(),
        "loss": -torch.log(torch.sigmoid(logit)),
    }
    for key, value in expected.items():
        torch.testing.assert_close(torch.as_tensor(logs[key]).double(), value, rtol=1e-4, atol=1e-4, msg=key)
        assert not torch.as_tensor(logs[key]).requires_grad, key


def test_grouped_logs_hold_the_rows_of_their_group(workspace: Workspace) -> None:
    policy, reference, batch = pair_setting(workspace)
    logs = FlowDPO().loss(policy, reference, batch).logs
    margins = torch.as_tensor(logs["rewards/margins"])
    for name in range(4):
        inside = (batch.t >= name / 4) & (batch.t < (name + 1) / 4)
        assert inside.sum() == 2  # t is stratified over the batch of 8
        assert torch.equal(torch.as_tensor(logs[f"rewards/margins/t{name}"]), margins[inside])
    for source in {pair.source for pair in batch.pairs}:
        rows = torch.tensor([pair.source == source for pair in batch.pairs])
        assert torch.equal(
            torch.as_tensor(logs[f"rewards/accuracies/source/{source}"]), (margins > 0).float()[rows]
        )
    assert torch.equal(torch.as_tensor(logs["rewards/margins/stage/1"]), margins)


def test_meter_weighs_every_value_alike_and_skips_empty_groups() -> None:
    meter = Meter()
    for loss in (
        Loss(torch.tensor(0.0), {"a": torch.tensor([1.0, 2.0, 3.0]), "b": torch.tensor([5.0]), "c": 1.0}),
        Loss(
            torch.tensor(0.0),
            {"a": torch.tensor([10.0]), "b": torch.tensor([]), "c": 4.0, "d": torch.tensor([])},
        ),
    ):
        meter.add(loss.logs)
    other = Meter()
    other.restore(meter.state())
    assert meter.take() == other.take() == {"a": 4.0, "b": 5.0, "c": 2.5}
    assert meter.take() == {}
