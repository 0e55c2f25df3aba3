"""DDPO: groups, the exact first ratio, clipping, what it climbs, resume in the middle of a rollout."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from foleypref.flow.convention import Latents, generator_of, noise_like_rows, seed_of
from foleypref.flow.sde import NOISE_LEVELS, transition
from foleypref.models.backbones import Model
from foleypref.models.tools import frozen_copy, sample_latents
from foleypref.settings.parts import Part
from foleypref.train import TrainResult, TrainSettings, train
from foleypref.training import run as training_run
from foleypref.training.log import Meter, read_metrics
from foleypref.training.objectives import Loss, TrainContext
from foleypref.training.objectives._rollouts import group_advantages, moving_window, sampled_clips
from foleypref.training.objectives.ddpo import DDPO, Steps, clipped_loss
from foleypref.workspace.records import Clip
from foleypref.workspace.store import Workspace
from tests.contracts.test_objectives import on_every_rank
from tests.test_train import TWO_PROCESSES, _spawn, assert_same_numbers, make_settings, metrics_without_time
from tests.tiny import TinyModel, TinyReward, fill_workspace
from tests.training.test_objectives_maths import make_context
from tests.training.test_reward import LOUDNESS, fit_to

SMALL = {"group_size": 4, "num_steps": 6}


def online_context(workspace: Workspace, model: TinyModel, **changes: Any) -> TrainContext:
    """8 samples a step of the tiny workspace's clips, and a reward that is known."""
    context = make_context(workspace, model, **changes)
    return dataclasses.replace(context, clips=workspace.read(Clip), reward=TinyReward())


def moved(model: TinyModel, by: float = 0.05) -> TinyModel:
    """The model with other weights."""
    other, generator = frozen_copy(model), generator_of("moved")
    for parameter in other.network.parameters():
        parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return other


def logs_of(losses: list[Loss]) -> dict[str, float]:
    """Means of logs over micro-batches."""
    meter = Meter()
    for loss in losses:
        meter.add(loss.logs)
    return meter.take()


# -- groups --------------------------------------------------------------------------------------------------


def test_advantages_are_centred_in_the_group_and_scaled_by_the_batch() -> None:
    rewards = torch.tensor([0.1, 0.3, 0.5, 0.9, 0.7, 0.7])
    found = group_advantages(rewards, 2, clip=5.0)
    std = float(np.std(rewards.double().numpy()))
    expected = np.array([-0.1, 0.1, -0.2, 0.2, 0.0, 0.0]) / (std + 1e-4)
    np.testing.assert_allclose(found.values, expected, rtol=1e-5, atol=1e-7)
    assert found.zero_std.tolist() == [False] * 4 + [True] * 2
    assert found.reward_std == pytest.approx(std)


def test_groups_without_spread_teach_exactly_nothing() -> None:
    rewards = torch.tensor([0.1, 0.1, 0.1, 0.7, 0.7, 0.7])  # whose mean rounds
    found = group_advantages(rewards, 3, clip=5.0)
    assert found.values.tolist() == [0.0] * 6
    assert found.zero_std.all()


def test_one_sample_in_many_is_clipped() -> None:
    rewards = torch.zeros(64)
    rewards[3] = 1.0
    assert group_advantages(rewards, 64, clip=5.0).values.max().item() == 5.0


def test_every_clip_is_met_before_any_is_met_again(workspace: Workspace) -> None:
    context = online_context(workspace, TinyModel())  # 24 clips, 8 samples a step
    rollouts = [sampled_clips(context, number, 4) for number in range(12)]
    for clips in rollouts:
        assert [clip.clip_id for clip in clips[::4]] == [clip.clip_id for clip in clips[3::4]]
    assert len({clip.clip_id for clips in rollouts for clip in clips}) == 24
    with pytest.raises(ValueError, match=r"takes 8 samples .* no multiple of group_size 3"):
        sampled_clips(context, 0, 3)


def test_the_window_moves_within_the_first_part() -> None:
    windows = [moving_window(generator_of(seed), 10, 2, 0.5) for seed in range(200)]
    assert {window.first for window in windows} == set(range(6))
    assert {window.last - window.first for window in windows} == {2}
    assert windows[0].times[0] == 0.0
    assert windows[0].times[-1] == 1.0
    assert {moving_window(generator_of(seed), 10, 10, 0.5).first for seed in range(20)} == {0}


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
    with pytest.raises(AssertionError, match="nobody kept"):
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


def rows_seen(objective: Any, context: TrainContext, policy: TinyModel, steps: int) -> dict[str, int]:
    """Rows that go forward through networks in some steps: while samples are made, and in the loss."""
    rows = {"rollout": 0, "policy": 0, "reference": 0}
    stage, reference = ["rollout"], frozen_copy(policy)

    def count(name: str) -> Callable[..., None]:
        def hook(network: Any, inputs: tuple[Latents, Tensor, Tensor], out: Any) -> None:
            rows["rollout" if stage[0] == "rollout" else name] += len(inputs[2])

        return hook

    handles = [policy.network.register_forward_hook(count("policy"))]
    handles.append(reference.network.register_forward_hook(count("reference")))
    for step in range(steps):
        stage[0] = "rollout"
        batches = objective.batches(context, step, policy)
        stage[0] = "loss"
        for batch in batches:
            objective.loss(policy, reference, batch)
    for handle in handles:
        handle.remove()
    return rows


def test_a_group_that_lies_across_processes_is_compared_as_one(workspace: Workspace) -> None:
    policy = TinyModel().load()
    whole = online_context(workspace, policy)
    part = dataclasses.replace(whole, per_device_batch_size=2)

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


# -- learning ------------------------------------------------------------------------------------------------


def climb(workspace: Workspace, objective: Part, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Held-out rewards along 30 steps on a reward that is known."""
    fill_workspace(workspace, split="align")
    monkeypatch.setattr(training_run, "Reward", lambda *_: TinyReward(target=1.5))
    settings = online_settings(objective, max_steps=30, eval_steps=15, logging_steps=30, save_steps=30)
    lines = read_metrics(train(workspace, settings).folder)
    assert all(line["eval/watch/tiny/spread"] > 0 for line in lines)
    return [line["eval/reward"] for line in lines]


def test_it_climbs_a_known_reward(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    rewards = climb(workspace, DDPO(group_size=8, num_steps=6, eval_num_steps=6), monkeypatch)
    assert rewards[-1] > rewards[0] + 0.2  # of about 0.12


@pytest.mark.slow
@pytest.mark.parametrize("variant", list(NOISE_LEVELS))
def test_every_variant_climbs_where_all_steps_learn(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    objective = DDPO(group_size=8, num_steps=6, window=None, variant=variant, eval_num_steps=6)
    rewards = climb(workspace, objective, monkeypatch)
    assert rewards[-1] > rewards[0] + 0.2


# -- runs ----------------------------------------------------------------------------------------------------


class Stopped(Exception):
    """As if the process had ended here."""


def online_settings(objective: Part, **changes: Any) -> TrainSettings:
    """A short online run of 32 samples a step."""
    base: dict[str, Any] = {
        "objective": objective,
        "curriculum": "uniform",
        "per_device_train_batch_size": 32,
        "learning_rate": 3e-2,
        "warmup_steps": 0,
    }
    return make_settings(**base | changes)


def stop_before(objective: type[Part], step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every run of this objective end before it takes `step`."""
    original = objective.batches  # type: ignore[attr-defined]

    def batches(self: Any, context: TrainContext, at: int, policy: Model) -> Any:
        if at == step:
            raise Stopped
        return original(self, context, at, policy)

    monkeypatch.setattr(objective, "batches", batches)


def loud_workspace(folder: Path) -> Workspace:
    """The tiny workspace and an AudioScore that likes the louder half of what the tiny model makes."""
    workspace = Workspace(folder)
    fill_workspace(workspace, split="align")
    fit_to(workspace, LOUDNESS, 0.6, 1.0)
    return workspace


def assert_learned(result: TrainResult) -> None:
    """There was something to learn: rewards differed, and the weights went somewhere."""
    assert all(line["reward_std"] > 0.05 for line in read_metrics(result.folder) if "reward_std" in line)
    assert any(line["kl_loss"] > 1e-6 for line in read_metrics(result.folder) if "kl_loss" in line)


def assert_resumes(
    objective: Part, stops: Sequence[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> None:
    """A run stopped before these steps goes on to the same bits each time."""
    shape = {"max_steps": 6, "save_steps": 1, "eval_steps": 3, "per_device_train_batch_size": 8}
    settings = online_settings(objective, bf16=True, **shape | changes)
    unbroken = train(loud_workspace(tmp_path / "unbroken"), settings)
    assert_learned(unbroken)
    workspace = loud_workspace(tmp_path / "broken")
    for step in stops:
        with monkeypatch.context() as patch:
            stop_before(type(objective), step, patch)
            with pytest.raises(Stopped):
                train(workspace, settings)
    resumed = train(workspace, settings)
    assert resumed.weights.read_bytes() == unbroken.weights.read_bytes()
    assert metrics_without_time(resumed.folder) == metrics_without_time(unbroken.folder)


@pytest.mark.parametrize("stops", [(2,), pytest.param((1, 2, 3, 4, 5), marks=pytest.mark.slow)])
def test_a_run_stopped_anywhere_goes_on_to_the_same_bits(
    stops: Sequence[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_resumes(DDPO(**SMALL, inner_epochs=3), stops, tmp_path, monkeypatch)


def test_a_checkpoint_carries_a_rollout_only_where_one_is_left(tmp_path: Path) -> None:
    settings = online_settings(DDPO(**SMALL, inner_epochs=3), max_steps=4, save_steps=1, save_total_limit=9)
    folder = train(loud_workspace(tmp_path / "w"), settings).folder
    kept = [(folder / f"checkpoint-{step}" / "objective.safetensors").exists() for step in range(1, 5)]
    assert kept == [True, True, False, True]


def test_two_runs_share_nothing(tmp_path: Path) -> None:
    objective = DDPO(**SMALL, inner_epochs=3)
    workspace = loud_workspace(tmp_path / "w")
    first, second = (
        train(workspace, online_settings(objective, run_name=name, max_steps=4)) for name in ("a", "b")
    )
    assert_learned(first)
    assert first.weights.read_bytes() == second.weights.read_bytes()
    assert objective.state() == {}
    assert copy.copy(objective) == objective


def assert_two_processes_equal_one(objective: Part, tmp_path: Path) -> TrainResult:
    """The same curve from two processes, whose groups lie across them, as from one."""
    workspace = loud_workspace(tmp_path / "w")
    shape = {"max_steps": 5, "save_steps": 2, "eval_steps": 2, "logging_steps": 1}
    one = online_settings(objective, per_device_train_batch_size=4, gradient_accumulation_steps=6, **shape)
    two = online_settings(
        objective, per_device_train_batch_size=4, gradient_accumulation_steps=3, run_name="two", **shape
    )
    code, said = _spawn(workspace, two, *TWO_PROCESSES)
    assert code == 0, said
    result = train(workspace, one)
    assert_learned(result)
    assert_same_numbers(result.folder, workspace.run_folder("two"), abs=2e-5, rel=1e-3)
    return result


@pytest.mark.slow
def test_two_processes_give_the_same_curve_as_one(tmp_path: Path) -> None:
    result = assert_two_processes_equal_one(DDPO(group_size=8, num_steps=6, inner_epochs=2), tmp_path)
    assert result.logs["compute/forwards"] == 5 * 24 * (6 / 2 + 2 * 4)


def test_another_reward_under_the_same_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = loud_workspace(tmp_path / "w")
    settings = online_settings(DDPO(**SMALL), max_steps=4, save_steps=1, per_device_train_batch_size=8)
    with monkeypatch.context() as patch:
        stop_before(DDPO, 2, patch)
        with pytest.raises(Stopped):
            train(workspace, settings)
    fit_to(workspace, LOUDNESS, 0.0, 0.5)
    with pytest.raises(ValueError, match="was started with reward = "):
        train(workspace, settings)


def test_what_is_lacking_is_said(filled: Workspace) -> None:
    settings = online_settings(DDPO(**SMALL), split="train", per_device_train_batch_size=8)
    with pytest.raises(ValueError, match="run fit first, a reward needs AudioScore"):
        train(filled, settings)
    with pytest.raises(ValueError, match="no clips of split 'align'"):
        train(filled, online_settings(DDPO(**SMALL)))
    fit_to(filled, LOUDNESS, 0.6, 1.0)
    odd = online_settings(DDPO(**SMALL), split="train", per_device_train_batch_size=6, run_name="odd")
    with pytest.raises(ValueError, match="no multiple of group_size 4"):
        train(filled, odd)


def test_noise_seeds_do_not_depend_on_the_batch(workspace: Workspace) -> None:
    policy = TinyModel().load()
    whole = online_context(workspace, policy)
    parts = dataclasses.replace(whole, per_device_batch_size=2, gradient_accumulation_steps=4)
    objective = DDPO(**SMALL, latest_start=0.0, window=1)
    (one,) = objective.batches(whole, 0, policy)
    several: list[Steps] = objective.batches(parts, 0, policy)
    x = torch.cat([batch.x["audio"] for batch in several])
    assert torch.equal(x, one.x["audio"])
    assert torch.equal(x[5], noise_like_rows(policy.spec.latents, [seed_of(0, 0, "x0", 5)])["audio"][0])
