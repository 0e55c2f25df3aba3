"""DDPO: groups, the exact first ratio, clipping, what it climbs, resume in the middle of a rollout."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from foleypref.flow.convention import noise_like_rows, seed_of
from foleypref.flow.sde import NOISE_LEVELS, transition
from foleypref.models.tools import frozen_copy, sample_latents
from foleypref.training.context import TrainContext
from foleypref.training.objectives._rollouts import sampled_clips
from foleypref.training.objectives.ddpo import DDPO, Steps, clipped_loss
from foleypref.workspace.store import Workspace
from tests.contracts.test_objectives import on_every_rank
from tests.tiny import TinyModel, TinyReward
from tests.training.contexts import laid_out
from tests.training.online import (
    SMALL,
    logs_of,
    moved,
    online_context,
    rows_seen,
)

# -- rollouts ------------------------------------------------------------------------------------------------


def test_without_noise_samples_are_those_of_the_ode(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, seen = TinyModel().load(), dict[str, Tensor]()
    context = online_context(workspace, policy)
    judge = TinyReward.judge
    monkeypatch.setattr(
        TinyReward, "judge", lambda self, clips, x, **kw: seen.update(x) or judge(self, clips, x, **kw)
    )
    for guidance_scale in (1.0, 3.0):
        objective = DDPO(**SMALL, noise_level=1e-7, guidance_scale=guidance_scale)
        objective.batches(context, 3, policy)
        clips = [clip.clip_id for clip in sampled_clips(context, 3, 4)]
        seeds = [seed_of(0, 3, "x0", i) for i in range(8)]
        with torch.no_grad():
            expected = sample_latents(
                policy, context.conditions(clips), seeds, num_steps=6, guidance_scale=guidance_scale
            )
        torch.testing.assert_close(seen["audio"], expected["audio"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shared", [False, True])
def test_a_group_starts_alike_only_where_asked_to(workspace: Workspace, shared: bool) -> None:
    policy = TinyModel().load()
    objective = DDPO(**SMALL, shared_noise=shared, latest_start=0.0)
    first, *_, last = objective.batches(online_context(workspace, policy), 0, policy)
    start = first.x["audio"]
    assert torch.equal(start[0], start[3]) == shared
    assert not torch.equal(start[0], start[4])
    assert not torch.equal(last.x_next["audio"][0], last.x_next["audio"][3])


def test_the_window_is_one_for_all_and_its_steps_are_chained(workspace: Workspace) -> None:
    policy = TinyModel().load()
    context = online_context(workspace, policy, per_device_batch_size=4, gradient_accumulation_steps=2)
    objective = DDPO(**SMALL, window=3)
    found = set()
    for step in range(8):
        batches = objective.batches(context, step, policy)
        assert len(batches) == 2 * 3
        times = [batch.t for batch in batches]
        assert times[:3] == times[3:] == sorted(times[:3])
        found.add(times[0])
        for now, then in itertools.pairwise(batches[:3]):
            assert torch.equal(now.x_next["audio"], then.x["audio"])
            assert now.t + now.dt == pytest.approx(then.t)
    assert len(found) > 1


# -- the loss ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        *({"variant": variant} for variant in NOISE_LEVELS),
        {"window": None},
        {"guidance_scale": 3.0},
        {"window": None, "variant": "cps", "shared_noise": True},
    ],
)
@pytest.mark.parametrize("joint", [False, True])
def test_the_first_ratio_is_exactly_1(workspace: Workspace, changes: dict[str, Any], joint: bool) -> None:
    policy = TinyModel(joint=joint).load()
    objective, reference = DDPO(**SMALL, **changes), frozen_copy(policy)
    context = online_context(workspace, policy)
    for bf16 in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            batches = objective.batches(context, 1, policy)
            for batch in batches:
                loss = objective.loss(policy, reference, batch)
                assert loss.logs["ratio"].tolist() == [1.0] * 8
                assert loss.logs["kl_loss"].tolist() == [0.0] * 8
                assert loss.value.item() == pytest.approx(-batch.advantage.mean().item(), abs=1e-6)


def test_a_model_with_two_answers_is_refused(workspace: Workspace) -> None:
    policy = TinyModel(noisy=True).load()
    objective = DDPO(**SMALL)
    batch = objective.batches(online_context(workspace, policy), 0, policy)[0]
    with pytest.raises(ValueError, match="must be exactly 1; the model gives two answers"):
        objective.loss(policy, frozen_copy(policy), batch)


def test_the_first_gradient_is_that_of_advantage_times_log_p(workspace: Workspace) -> None:
    policy = TinyModel().load()
    objective = DDPO(**SMALL, kl_weight=0.0)
    batch = objective.batches(online_context(workspace, policy), 0, policy)[0]
    assert not objective.needs_reference
    objective.loss(policy, None, batch).value.backward()
    found = [
        parameter.grad.clone() for parameter in policy.network.parameters() if parameter.grad is not None
    ]
    policy.network.zero_grad()
    v = policy.velocity(batch.x, torch.full((8,), batch.t), batch.conditions)
    step = transition("flow_sde", v, batch.x, batch.t, batch.dt, 0.7)
    normal = torch.distributions.Normal(step.mean["audio"], step.std)
    log_p = normal.log_prob(batch.x_next["audio"]).flatten(1).mean(1)
    (-(batch.advantage * log_p).mean()).backward()
    expected = [parameter.grad for parameter in policy.network.parameters()]
    assert max(grad.abs().max().item() for grad in found) > 1e-4
    for here, there in zip(found, expected, strict=True):
        torch.testing.assert_close(here, there, atol=1e-6, rtol=1e-4)


def test_clipping_stops_what_has_gone_far_enough_and_nothing_else() -> None:
    ratio = torch.tensor([1.3, 1.3, 0.7, 0.7, 1.1], requires_grad=True)
    advantage = torch.tensor([2.0, -2.0, 2.0, -2.0, 2.0])
    loss = clipped_loss(ratio, advantage, 0.2)
    torch.testing.assert_close(loss, torch.tensor([-2.4, 2.6, -1.4, 1.6, -2.2]))
    loss.sum().backward()
    assert ratio.grad is not None
    assert ratio.grad.tolist() == [0.0, 2.0, -2.0, 0.0, -2.0]


def test_later_epochs_see_the_ratio_of_the_policy_as_it_is(workspace: Workspace) -> None:
    policy = TinyModel().load()
    objective, context = DDPO(**SMALL, inner_epochs=3), online_context(workspace, policy)
    first = objective.batches(context, 3, policy)
    again = objective.batches(context, 4, moved(policy))
    for one, other in zip(first, again, strict=True):  # the same rollout
        assert torch.equal(one.x_next["audio"], other.x_next["audio"])
        assert (one.on_policy, other.on_policy) == (True, False)
    later = moved(policy)
    logs = objective.loss(later, frozen_copy(policy), again[0]).logs
    v = later.velocity(again[0].x, torch.full((8,), again[0].t), again[0].conditions)
    step = transition("flow_sde", v, again[0].x, again[0].t, again[0].dt, 0.7)
    log_ratio = step.log_prob(again[0].x_next) - again[0].log_prob
    torch.testing.assert_close(logs["ratio"], log_ratio.exp().detach())
    outside = [logs[f"clipfrac/{side}"].sum().item() for side in ("upper", "lower")]  # type: ignore[union-attr]
    assert sum(outside) == ((log_ratio.exp() - 1).abs() > objective.clip_range).sum().item() > 0
    with pytest.raises(AssertionError, match="was not kept"):
        DDPO(**SMALL, inner_epochs=3).batches(context, 4, policy)


def test_distance_to_the_reference_is_the_kl_of_the_steps(workspace: Workspace) -> None:
    policy = TinyModel().load()
    reference = moved(policy)
    context = online_context(workspace, policy)
    objective, free = DDPO(**SMALL, kl_weight=0.5), DDPO(**SMALL, kl_weight=0.0)
    batch = objective.batches(context, 0, policy)[0]
    loss = objective.loss(policy, reference, batch)
    t = torch.full((8,), batch.t)
    means, std = [], 0.0
    for model in (policy, reference):
        v = model.velocity(batch.x, t, batch.conditions)
        step = transition("flow_sde", v, batch.x, batch.t, batch.dt, 0.7)
        means.append(step.mean["audio"])
        std = step.std
    kl = ((means[0] - means[1]) ** 2).flatten(1).mean(1) / (2 * std**2)
    torch.testing.assert_close(torch.as_tensor(loss.logs["kl_loss"]), kl.detach())
    alone = free.loss(policy, None, batch).value
    torch.testing.assert_close(loss.value, alone + 0.5 * kl.mean())


@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
@pytest.mark.parametrize("inner_epochs", [1, 2])
def test_forwards_are_the_rows_that_the_networks_see(
    workspace: Workspace, guidance_scale: float, inner_epochs: int
) -> None:
    policy = TinyModel().load()
    objective = DDPO(**SMALL, guidance_scale=guidance_scale, inner_epochs=inner_epochs)
    rows = rows_seen(objective, online_context(workspace, policy), policy, inner_epochs)
    assert objective.forwards * 8 * inner_epochs == rows["rollout"] + 3 * rows["policy"] + rows["reference"]


def test_a_group_that_lies_across_processes_is_compared_as_one(workspace: Workspace) -> None:
    policy = TinyModel().load()
    whole = online_context(workspace, policy)
    part = laid_out(whole, per_device_batch_size=2)

    def advantages(context: TrainContext) -> Tensor:
        return DDPO(group_size=8, num_steps=6, window=1).batches(context, 0, policy)[0].advantage

    together = torch.cat(on_every_rank(part, 4, advantages))
    assert together.abs().min() > 0
    torch.testing.assert_close(together, advantages(whole), atol=1e-5, rtol=1e-4)


def test_unscored_samples_and_flat_groups_are_counted(workspace: Workspace) -> None:
    policy = TinyModel().load()
    context = online_context(workspace, policy)
    lost = sampled_clips(context, 0, 4)[0].clip_id
    context = dataclasses.replace(context, reward=TinyReward(unscored=(lost,)))
    objective = DDPO(**SMALL)
    losses = [objective.loss(policy, policy, batch) for batch in objective.batches(context, 0, policy)]
    logs = logs_of(losses)
    assert (logs["unscored"], logs["zero_std"]) == (0.5, 0.5)
    assert set(logs) == {
        "advantage/abs", "approx_kl", "clipfrac/lower", "clipfrac/upper", "kl_loss", "loss", "policy_loss",
        "ratio", "reward", "reward_std", "unscored", "zero_std",
    }  # fmt: skip


# -- runs ----------------------------------------------------------------------------------------------------


def test_noise_seeds_do_not_depend_on_the_batch(workspace: Workspace) -> None:
    policy = TinyModel().load()
    whole = online_context(workspace, policy)
    parts = laid_out(whole, per_device_batch_size=2, gradient_accumulation_steps=4)
    objective = DDPO(**SMALL, latest_start=0.0, window=1)
    (one,) = objective.batches(whole, 0, policy)
    several: list[Steps] = objective.batches(parts, 0, policy)
    x = torch.cat([batch.x["audio"] for batch in several])
    assert torch.equal(x, one.x["audio"])
    assert torch.equal(x[5], noise_like_rows(policy.spec.latents, [seed_of(0, 0, "x0", 5)])["audio"][0])
