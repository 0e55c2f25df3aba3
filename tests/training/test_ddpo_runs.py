"""Runs of DDPO: a known reward rises, killed runs resume to the same bits, bad inputs are refused."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import pytest

from foleypref.flow.sde import NOISE_LEVELS
from foleypref.train import train
from foleypref.training.objectives.ddpo import DDPO
from foleypref.workspace.store import Workspace
from tests.training.online import (
    SMALL,
    Stopped,
    assert_learned,
    assert_resumes,
    assert_two_processes_equal_one,
    climb,
    loud_workspace,
    online_settings,
    stop_before,
)
from tests.training.test_reward import LOUDNESS, fit_to


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
