"""KTO against closed forms: value and gradient, its reference point, weights, the walk over labels, a run."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest
import torch

from foleypref.flow.convention import interpolate, squared_error, target_velocity
from foleypref.models.tools import frozen_copy
from foleypref.train import TrainSettings, train
from foleypref.training.data import Label, TrainData
from foleypref.training.inputs import split_data
from foleypref.training.log import read_metrics
from foleypref.training.objectives._labels import LabelBatch, pick
from foleypref.training.objectives.kto import KTO, value_of
from foleypref.workspace.records import GROUND_TRUTH, Candidate, Rating
from foleypref.workspace.store import Workspace
from tests.test_train import _spawn, make_settings, metrics_without_time
from tests.tiny import TinyModel, fill_workspace
from tests.training.contexts import make_context

BETA = 40.0
DELTA = torch.tensor([-0.03, 0.01, -0.02, 0.05], dtype=torch.float64)
OFFSET = torch.tensor([0.1, 0.2, 0.0, 0.3], dtype=torch.float64)
DESIRABLE = torch.tensor([True, True, False, False])
LABELS = [Label(f"g{i}", f"c{i}", True, "auto") for i in range(3)] + [
    Label(f"b{i}", f"c{i}", False, "auto") for i in range(7)
]


def _setting(workspace: Workspace, *, joint: bool = False) -> tuple[TinyModel, TinyModel, LabelBatch]:
    """Policy, a reference with other weights, and a batch of 8 labelled candidates."""
    policy = TinyModel(joint=joint).load()
    reference = frozen_copy(TinyModel(joint=joint, seed=1).load())
    return policy, reference, KTO().batches(make_context(workspace, policy), 0, policy)[0]


def _deltas(policy: TinyModel, reference: TinyModel, batch: LabelBatch, key: str) -> tuple[Any, Any]:
    """Δ and the mean squared distance of the two velocities, each (B,), in float64."""
    x_t, v = interpolate(batch.x0, batch.x1, batch.t), target_velocity(batch.x0, batch.x1)[key].double()
    ours, theirs = (m.velocity(x_t, batch.t, batch.conditions)[key].double() for m in (policy, reference))
    delta = ((ours - v) ** 2).flatten(1).mean(1) - ((theirs - v) ** 2).flatten(1).mean(1)
    return delta, ((ours - theirs) ** 2).flatten(1).mean(1)


def test_the_value_and_its_gradient_are_the_closed_form() -> None:
    delta = DELTA.clone().requires_grad_()
    value = value_of(delta, OFFSET, DESIRABLE, BETA)
    logit = torch.tensor([0.6 - 0.1, -0.2 - 0.2, 0.0 - 0.4, 0.3 + 1.0], dtype=torch.float64)
    torch.testing.assert_close(value.logit, logit)
    torch.testing.assert_close(value.loss, 1 - torch.sigmoid(logit))
    value.loss.sum().backward()
    slope = BETA / 2 * torch.sigmoid(logit) * torch.sigmoid(-logit)
    torch.testing.assert_close(delta.grad, torch.where(DESIRABLE, slope, -slope))


def test_the_reference_point_takes_no_gradient() -> None:
    offset = OFFSET.clone().requires_grad_()
    loss = value_of(DELTA.clone().requires_grad_(), offset, DESIRABLE, BETA).loss
    loss.sum().backward()
    assert offset.grad is None


def test_the_reference_point_is_the_mean_reward_of_what_the_policy_would_make(workspace: Workspace) -> None:
    """Targets around v_policy, symmetric: their mean −Δ is the squared distance of the two velocities."""
    policy, reference, batch = _setting(workspace)
    x_t = interpolate(batch.x0, batch.x1, batch.t)
    with torch.no_grad():
        ours, theirs = (m.velocity(x_t, batch.t, batch.conditions)["audio"] for m in (policy, reference))
    noise = torch.randn(ours.shape, generator=torch.Generator().manual_seed(0))
    rewards = [
        -BETA / 2 * (squared_error(ours, target) - squared_error(theirs, target))
        for target in (ours + noise, ours - noise)
    ]
    offset = KTO(beta=BETA)._offset("audio", ours, theirs, torch.zeros(8))
    torch.testing.assert_close(offset, (rewards[0] + rewards[1]) / 2, rtol=1e-4, atol=1e-5)
    assert offset.min() > 0


@pytest.mark.parametrize("joint", [False, True])
def test_the_loss_is_the_weighted_value_a_modality(workspace: Workspace, joint: bool) -> None:
    policy, reference, batch = _setting(workspace, joint=joint)
    batch = dataclasses.replace(batch, weight=torch.linspace(0.5, 1.2, 8))
    beta = {"audio": 3.0, "video": 9.0}
    objective = KTO(beta=beta, desirable_weight=1.5, undesirable_weight=0.5)
    loss = objective.loss(policy, reference, batch)
    total = torch.zeros(8, dtype=torch.float64)
    for key in policy.spec.latents:
        delta, distance = _deltas(policy, reference, batch, key)
        sign = torch.where(batch.desirable, 1.0, -1.0)
        total += 1 - torch.sigmoid(sign * (-beta[key] / 2 * delta - beta[key] / 2 * distance))
    total *= torch.where(batch.desirable, 1.5, 0.5) * batch.weight
    torch.testing.assert_close(loss.value.double(), total.mean(), rtol=1e-5, atol=1e-6)
    assert batch.desirable.tolist() == [True, False] * 4
    with pytest.raises(ValueError, match="also has 'audio'"):
        KTO(beta={"video": 3.0}).loss(policy, reference, batch)


def test_the_batch_offset_is_the_clamped_mean_reward(workspace: Workspace) -> None:
    policy, reference, batch = _setting(workspace)
    delta, _ = _deltas(policy, reference, batch, "audio")
    for beta in (5.0, -5.0):  # one of the two means is below 0
        loss = KTO(beta=beta, offset="batch").loss(policy, reference, batch)
        mean = (-beta / 2 * delta).mean().clamp(min=0)
        torch.testing.assert_close(torch.as_tensor(loss.logs["kto/kl"]).double(), mean.expand(8))


def test_the_loss_at_the_reference_is_half_the_weight(workspace: Workspace) -> None:
    policy, _, batch = _setting(workspace, joint=True)
    objective = KTO(desirable_weight=0.8, undesirable_weight=0.8)
    assert objective.initial_loss(policy.spec) == pytest.approx(0.8)
    assert objective.loss(policy, frozen_copy(policy), batch).value.item() == pytest.approx(0.8)
    assert KTO(desirable_weight=1.3).initial_loss(policy.spec) is None


def test_logs_are_what_their_names_say(workspace: Workspace) -> None:
    policy, reference, batch = _setting(workspace)
    logs = KTO(beta=BETA).loss(policy, reference, batch).logs
    delta, distance = _deltas(policy, reference, batch, "audio")
    wanted = batch.desirable
    logit = torch.where(wanted, 1.0, -1.0) * -BETA / 2 * (delta + distance)
    expected = {
        "rewards/chosen": -BETA / 2 * delta[wanted],
        "rewards/rejected": -BETA / 2 * delta[~wanted],
        "rewards/margins": logit,
        "rewards/accuracies": (logit > 0).double(),
        "kto/kl": BETA / 2 * distance,
        "flow/winner_delta": delta[wanted],
        "flow/loser_delta": delta[~wanted],
        "flow/saturated_frac": (logit.abs() > 3).double(),
        "flow/gradient_factor": torch.sigmoid(logit) * torch.sigmoid(-logit),
    }
    for key, value in expected.items():
        torch.testing.assert_close(torch.as_tensor(logs[key]).double(), value, rtol=1e-3, atol=1e-4, msg=key)
    first = torch.as_tensor(logs["rewards/margins/t0"])
    assert first.tolist() == torch.as_tensor(logs["rewards/margins"])[batch.t < 0.25].tolist()


# -- which items ---------------------------------------------------------------------------------------------


def test_a_balanced_walk_takes_a_wanted_and_an_unwanted_in_turn() -> None:
    walked = pick(LABELS, 0, 42, 0, balanced=True)
    assert [label.desirable for label in walked] == [True, False] * 21
    assert Counter(x.candidate_id for x in walked) == {f"g{i}": 7 for i in range(3)} | {
        f"b{i}": 3 for i in range(7)
    }
    for size in (1, 3, 4, 7):  # any step can be computed by itself, also if sizes are odd
        assert [x for at in range(0, 42, size) for x in pick(LABELS, at, size, 0, balanced=True)][
            :42
        ] == walked
    assert pick(LABELS, 0, 42, 1, balanced=True) != walked


def test_an_unbalanced_walk_takes_every_label_once_a_pass() -> None:
    walked = pick(LABELS, 0, 20, 0, balanced=False)
    assert {x.candidate_id for x in walked[:10]} == {x.candidate_id for x in LABELS}
    assert walked[:10] != walked[10:]
    assert pick(LABELS, 6, 8, 0, balanced=False) == walked[6:14]


def test_a_label_brings_its_own_latents_and_conditions(workspace: Workspace) -> None:
    policy = TinyModel().load()
    context = make_context(workspace, policy)
    (batch,) = KTO().batches(context, 1, policy)
    for row, label in enumerate(batch.labels):
        own = workspace.rows([context.candidates[label.candidate_id]])
        assert torch.equal(batch.x1["audio"][row], own["audio"][0])
        clip = workspace.rows([context.features[label.clip_id]])["clip"][0]
        assert torch.equal(batch.conditions["clip"][row], clip)
    held_out = list(KTO().eval_batches(context, policy))
    assert sum(len(batch.labels) for batch in held_out) == 4 * len(context.data.labels)


# -- runs ----------------------------------------------------------------------------------------------------


def rate_all(workspace: Workspace) -> None:
    """Write human ratings: every chosen candidate is good, every other one bad."""
    fill_workspace(workspace)
    workspace.append(
        [
            Rating.make(c.candidate_id, "ann", 2 if c.seed == 0 else 0, "human")
            for c in workspace.read(Candidate)
            if c.model != GROUND_TRUTH
        ]
    )


def kto_settings(**changes: Any) -> TrainSettings:
    """A run of a dozen steps on labels of tests.tiny's clips."""
    return make_settings(**{"objective": KTO(beta=20.0), "split": "train"} | changes)


def test_a_run_learns_from_labels(workspace: Workspace) -> None:
    rate_all(workspace)
    result = train(workspace, kto_settings(max_steps=80, learning_rate=3e-3))
    first = read_metrics(result.folder)[0]
    assert first["eval/loss"] == pytest.approx(0.5)
    assert result.logs["eval/loss"] < 0.35
    assert result.logs["eval/rewards/accuracies"] > 0.8
    assert result.logs["eval/rewards/chosen"] > 0 > result.logs["eval/rewards/rejected"]


def test_a_run_holds_out_whole_clips(workspace: Workspace) -> None:
    rate_all(workspace)
    settings = kto_settings()
    kept, held_out = split_data(workspace, settings)
    assert len(held_out.labels) == 6
    assert not kept.clip_ids & held_out.clip_ids
    assert kept.counts().endswith(
        f"({sum(x.desirable for x in kept.labels)} desirable; {len(kept.labels)} human)"
    )
    assert (kept + held_out).identity().keys() == {"labels"}
    assert kept.pairs == held_out.pairs == []
    with pytest.raises(ValueError, match="well below half"):
        split_data(workspace, kto_settings(num_eval_pairs=70))
    assert TrainData().counts() == "nothing"


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(workspace: Workspace, tmp_path: Any) -> None:
    rate_all(workspace)
    settings = kto_settings()
    code, said = _spawn(workspace, settings, KILL_AT_SAVE="8")
    assert code == -9, said
    resumed = train(workspace, settings)
    other = Workspace(tmp_path / "other")
    rate_all(other)
    unbroken = train(other, settings)
    assert resumed.weights.read_bytes() == unbroken.weights.read_bytes()
    assert metrics_without_time(resumed.folder) == metrics_without_time(unbroken.folder)


def test_reference_errors_cannot_be_precomputed(workspace: Workspace) -> None:
    rate_all(workspace)
    with pytest.raises(ValueError, match="kto has no errors to precompute"):
        train(workspace, kto_settings(precompute_reference_errors=True))
