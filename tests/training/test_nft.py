"""DiffusionNFT: the closed form where the policy is the old one, signs, the old policy, what it climbs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from foleypref.flow.convention import Latents, expand, interpolate, seed_of, target_velocity
from foleypref.models.tools import frozen_copy, sample_latents, with_network
from foleypref.train import train
from foleypref.training.objectives._rollouts import sampled_clips
from foleypref.training.objectives.nft import NFT, Noised, implicit_velocities, weighted_error
from foleypref.workspace.store import Workspace
from tests.tiny import TinyModel, TinyReward
from tests.training.online import (
    SMALL,
    assert_resumes,
    assert_two_processes_equal_one,
    climb,
    loud_workspace,
    moved,
    online_context,
    online_settings,
    rows_seen,
)


def first_batch(
    workspace: Workspace, *, joint: bool = False, **changes: float
) -> tuple[NFT, TinyModel, Noised]:
    """Objective, policy and the first micro-batch of 8 samples."""
    policy = TinyModel(joint=joint).load()
    objective = NFT(**SMALL, **changes)  # type: ignore[arg-type]
    return objective, policy, objective.batches(online_context(workspace, policy), 0, policy)[0]


def errors(policy: TinyModel, batch: Noised) -> Tensor:
    """x̂1 - x1 = (1 - t)(v - (x1 - x0)) in float64, all modalities side by side: (B, D)."""
    v = policy.velocity(interpolate(batch.x0, batch.x1, batch.t), batch.t, batch.conditions)
    target = target_velocity(batch.x0, batch.x1)
    parts = [(1 - expand(batch.t, v[k])) * (v[k] - target[k]) for k in sorted(v)]
    return torch.cat([part.double().flatten(1) for part in parts], dim=1)


# -- the closed form -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("b", [1.0, 0.1])
def test_first_loss_is_the_weighted_error_whatever_the_rewards(
    workspace: Workspace, joint: bool, b: float
) -> None:
    objective, policy, batch = first_batch(workspace, joint=joint, strength=b)
    loss = objective.loss(policy, frozen_copy(policy), batch)
    e = errors(policy, batch)
    expected = 5 / b * e.square().mean(1) / e.abs().mean(1)
    torch.testing.assert_close(
        torch.as_tensor(loss.logs["loss"]).double(), expected.detach(), rtol=1e-4, atol=0
    )
    assert torch.as_tensor(loss.logs["kl_loss"]).tolist() == [0.0] * 8
    assert torch.as_tensor(loss.logs["nft/old_distance"]).tolist() == [0.0] * 8


@pytest.mark.parametrize("b", [1.0, 0.1])
def test_first_gradient_is_advantage_times_that_of_the_flow_matching_error(b: float) -> None:
    """5 (2r - 1) · 2 (1 - t)(x̂1 - x1) w / D for every b: towards good samples, away from bad ones."""
    generator = torch.Generator().manual_seed(0)
    v, x_t, x1 = ({"audio": torch.randn(3, 4, 2, generator=generator).double()} for _ in range(3))
    t, r = torch.tensor([0.2, 0.5, 0.9]).double(), torch.tensor([0.9, 0.5, 0.2]).double()
    policy = {"audio": v["audio"].clone().requires_grad_()}
    good, bad = implicit_velocities(policy, v, b)
    loss = 5 / b * (r * weighted_error(good, x_t, x1, t) + (1 - r) * weighted_error(bad, x_t, x1, t))
    loss.sum().backward()
    room = (1 - t)[:, None, None]
    e = x_t["audio"] + room * v["audio"] - x1["audio"]
    weight = 1 / e.abs().flatten(1).mean(1)
    expected = 5 * (2 * r - 1)[:, None, None] * 2 * room * e * weight[:, None, None] / 8
    found = policy["audio"].grad
    assert found is not None
    torch.testing.assert_close(found, expected)
    step = x_t["audio"] + room * (v["audio"] - 0.01 * found)  # x̂1 after a step downhill
    closer = (step - x1["audio"]).square().flatten(1).sum(1) < e.square().flatten(1).sum(1)
    assert closer.tolist() == [True, False, False]
    assert found[1].abs().max() < 1e-12


def test_good_leans_to_the_policy_and_bad_away_by_as_much() -> None:
    v, old = {"audio": torch.tensor([[[3.0]]])}, {"audio": torch.tensor([[[1.0]]])}
    good, bad = implicit_velocities(v, old, 0.25)
    assert good["audio"].item() == 1.5
    assert bad["audio"].item() == 0.5
    assert implicit_velocities(v, old, 1.0)[0]["audio"].item() == 3.0


def test_a_perfect_prediction_has_a_finite_weight() -> None:
    x = {"audio": torch.zeros(2, 3, 1)}
    v: Latents = {"audio": torch.zeros(2, 3, 1, requires_grad=True)}
    error = weighted_error(v, x, x, torch.zeros(2))
    error.sum().backward()
    assert error.tolist() == [0.0, 0.0]
    assert v["audio"].grad is not None
    assert v["audio"].grad.isfinite().all()


def test_optimality_is_half_for_the_groups_mean(workspace: Workspace) -> None:
    _, _, batch = first_batch(workspace)
    r, reward = batch.optimality, batch.logs["reward"]
    assert ((r > 0) & (r < 1)).all()
    torch.testing.assert_close(r.reshape(2, 4).mean(1), torch.full((2,), 0.5))
    centred = reward.reshape(2, 4) - reward.reshape(2, 4).mean(1, keepdim=True)
    expected = 0.5 + centred.flatten() / (reward.std(correction=0) + 1e-4) / 10
    torch.testing.assert_close(r, expected, atol=1e-6, rtol=1e-5)


def test_distance_to_the_reference_costs_what_it_says(workspace: Workspace) -> None:
    objective, policy, batch = first_batch(workspace, reference_weight=0.5)
    reference = moved(policy)
    here, there = objective.loss(policy, policy, batch), objective.loss(policy, reference, batch)
    x_t = interpolate(batch.x0, batch.x1, batch.t)
    apart = (
        policy.velocity(x_t, batch.t, batch.conditions)["audio"]
        - reference.velocity(x_t, batch.t, batch.conditions)["audio"]
    )
    torch.testing.assert_close(there.value - here.value, 0.5 * apart.square().mean(), atol=1e-6, rtol=1e-4)
    assert not NFT(reference_weight=0.0).needs_reference


# -- rollouts and the old policy -----------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["euler", "midpoint", "rk4"])
def test_samples_are_the_old_policys_by_any_solver(workspace: Workspace, solver: str) -> None:
    policy = TinyModel().load()
    context, objective = online_context(workspace, policy), NFT(**SMALL, solver=solver, num_times=3)
    batches = objective.batches(context, 0, policy)
    assert len(batches) == 3
    clips = [clip.clip_id for clip in sampled_clips(context, 0, 4)]
    seeds = [seed_of(0, 0, "x0", i) for i in range(8)]
    with torch.no_grad():
        expected = sample_latents(
            policy, context.conditions(clips), seeds, num_steps=6, guidance_scale=1.0, solver=solver
        )
    for batch in batches:
        torch.testing.assert_close(batch.x1["audio"], expected["audio"])
    times = torch.cat([batch.t for batch in batches])
    assert sorted((times * 24).long().tolist()) == list(range(24))  # stratified over samples and times
    assert not torch.equal(batches[0].x0["audio"], batches[1].x0["audio"])


def test_the_old_policy_is_a_moving_average_that_slows_down(workspace: Workspace) -> None:
    policy = TinyModel().load()
    context, objective = online_context(workspace, policy), NFT(**SMALL, decay_rate=0.2, decay_max=0.5)
    objective.batches(context, 0, policy)
    expected = {key: value.clone() for key, value in policy.network.state_dict().items()}
    for step in range(1, 5):
        policy = with_network(policy, moved(policy, by=0.1).network.requires_grad_())
        for _ in range(2):  # once per step, however often it is asked for
            objective.batches(context, step, policy)
        decay = min(0.2 * step, 0.5)
        for key, value in policy.network.state_dict().items():
            expected[key] = decay * expected[key] + (1 - decay) * value
        for key, value in objective.state().items():
            torch.testing.assert_close(value, expected[key])


def test_no_gradient_reaches_the_old_policy(workspace: Workspace) -> None:
    objective, policy, batch = first_batch(workspace)
    before = {key: value.clone() for key, value in objective.state().items()}
    objective.loss(policy, frozen_copy(policy), batch).value.backward()
    with torch.no_grad():
        for parameter in policy.network.parameters():
            parameter.add_(1.0)
    for key, value in objective.state().items():  # a copy, of its own
        assert torch.equal(value, before[key])


def test_guidance_is_for_rollouts_alone(workspace: Workspace) -> None:
    policy = TinyModel().load()
    context = online_context(workspace, policy)
    plain, guided = (
        NFT(**SMALL, guidance_scale=scale).batches(context, 0, policy)[0] for scale in (1.0, 3.0)
    )
    assert not torch.equal(plain.x1["audio"], guided.x1["audio"])


@pytest.mark.parametrize(("solver", "guidance_scale"), [("euler", 1.0), ("midpoint", 2.0)])
def test_forwards_are_the_rows_that_the_networks_see(
    workspace: Workspace, solver: str, guidance_scale: float
) -> None:
    policy = TinyModel().load()
    objective = NFT(**SMALL, solver=solver, guidance_scale=guidance_scale, num_times=3)
    context = online_context(workspace, policy)
    rows = rows_seen(objective, context, policy, 1)
    calls = 6 * (2 * 2 if solver == "midpoint" else 1)
    # the old policy, a copy that is counted with the policy, samples and answers once for each time
    assert rows == {"rollout": 8 * calls, "policy": 8 * 3 + 8 * 3, "reference": 8 * 3}
    assert objective.forwards * 8 == 8 * calls + 3 * (8 * 3) + 8 * 3 + 8 * 3


def test_unscored_samples_are_counted(workspace: Workspace) -> None:
    policy = TinyModel().load()
    context = online_context(workspace, policy)
    lost = sampled_clips(context, 0, 4)[0].clip_id
    context = dataclasses.replace(context, reward=TinyReward(unscored=(lost,)))
    logs = NFT(**SMALL).batches(context, 0, policy)[0].logs
    assert logs["unscored"].tolist() == [1.0] * 4 + [0.0] * 4
    assert logs["nft/optimality"][:4].tolist() == [0.5] * 4


# -- learning and runs ---------------------------------------------------------------------------------------


def test_it_climbs_a_known_reward(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    rewards = climb(workspace, NFT(group_size=8, num_steps=6, eval_num_steps=6), monkeypatch)
    assert rewards[-1] > rewards[0] + 0.3  # of about 0.12


@pytest.mark.parametrize("stops", [(3,), pytest.param((1, 2, 3, 4, 5), marks=pytest.mark.slow)])
def test_a_run_stopped_anywhere_goes_on_to_the_same_bits(
    stops: Sequence[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_resumes(NFT(**SMALL, decay_rate=0.1), stops, tmp_path, monkeypatch)


@pytest.mark.slow
def test_a_run_of_adapters_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    settings = {"use_peft": True}
    assert_resumes(NFT(**SMALL, decay_rate=0.1), (2, 4), tmp_path, monkeypatch, **settings)
    run = train(
        loud_workspace(tmp_path / "w"), online_settings(NFT(**SMALL), max_steps=2, save_steps=1, **settings)
    )
    assert (run.folder / "checkpoint-2" / "objective.safetensors").stat().st_size < 20_000


@pytest.mark.slow
def test_two_processes_give_the_same_curve_as_one(tmp_path: Path) -> None:
    result = assert_two_processes_equal_one(NFT(group_size=8, num_steps=6, decay_rate=0.1), tmp_path)
    assert result.logs["compute/forwards"] == 5 * 24 * (6 + 2 * 5)
