"""Groups of samples: what they are worth, which clips they are of, and the moving window."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foleypref.flow.convention import generator_of
from foleypref.training.objectives._rollouts import group_advantages, sampled_clips
from foleypref.training.objectives._window import moving_window
from foleypref.workspace.store import Workspace
from tests.tiny import TinyModel
from tests.training.online import (
    online_context,
)


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
