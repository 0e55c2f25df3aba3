"""The reward: p(Good) of the policy's samples, the same in any batch; watched judges; refusals."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from foleypref.flow.convention import Latents, noise_like_rows
from foleypref.scoring import scorer_inputs
from foleypref.scoring.crossval import Training, fit_audioscore
from foleypref.scoring.scorers import Judgement, ScoreItem, Scorer, Unscored, Value, is_silent
from foleypref.scoring.scorers.audioscore import AudioScore, Fitted
from foleypref.training import reward as rewards
from foleypref.training.reward import Reward
from foleypref.workspace.records import Clip
from foleypref.workspace.store import Workspace
from tests.judged import scores_of
from tests.scoring.test_scorer_inputs import Joint, grey_clip, rows
from tests.tiny import TinyModel

LOUDNESS = f"{__name__}:Level/rms"
BRIGHTNESS = "tests.scoring.test_scorer_inputs:Brightness/grey"
CHEAT = "tests.scored_workspace:Cheat/rms"


def rms(wave: np.ndarray) -> Value:
    return Unscored("silent") if is_silent(wave) else float(np.sqrt(np.mean(wave**2)))


class Level(Scorer):
    """A judge that hears only sound."""

    needs: ClassVar[frozenset[str]] = frozenset({"audio"})
    dimensions: ClassVar[tuple[str, ...]] = ("rms",)
    higher_is_better: ClassVar[dict[str, bool]] = {"rms": True}
    version: ClassVar[str] = "1"

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        return Judgement({"rms": [rms(i.wave) for i in items]}, {})


@cache
def fitted(dimension: str, low: float, high: float) -> Fitted:
    """Good above the middle of the range, bad below."""
    values = np.linspace(low, high, 60)
    labels = np.where(values > (low + high) / 2, 2, 0)
    return fit_audioscore(values[:, None], np.eye(3)[labels], {dimension: "1"}, Training(num_steps=150))


def fit_to(workspace: Workspace, dimension: str, low: float, high: float) -> None:
    """An AudioScore in the workspace that calls things good above the middle of the range."""
    folder = workspace.root / "audioscore"
    folder.mkdir(exist_ok=True)
    (folder / "audioscore.safetensors").write_bytes(fitted(dimension, low, high).serialise())


@pytest.fixture
def clips(workspace: Workspace) -> list[Clip]:
    fit_to(workspace, LOUDNESS, 0.01, 0.9)
    clip = grey_clip(workspace.root)
    others = [Clip(f"c{i}", clip.path, "align", "x", 0.0, 1.0, 25.0, 16, 16, True) for i in range(2)]
    return [clip, *others]


def loud(*levels: float) -> Latents:
    """Latents that sound at these levels; 0 is silence."""
    noise = noise_like_rows({"audio": (6, 4)}, range(len(levels)))["audio"].sign()
    return {"audio": noise * torch.tensor(levels)[:, None, None]}


def test_it_is_the_p_good_of_the_decoded_sound(workspace: Workspace, clips: list[Clip]) -> None:
    model = TinyModel().load()
    latents = loud(0.1, 0.5, 0.8)
    found = Reward(workspace, model).judge(clips, latents).rewards
    score = AudioScore(weights=str(workspace.root / "audioscore" / "audioscore.safetensors")).load()
    items = [ScoreItem(str(i), wave, 24) for i, wave in enumerate(model.decode(latents).numpy())]
    expected = [s.value for s in scores_of(score, items) if s.dimension == "p_good"]
    assert found.tolist() == pytest.approx(expected)
    assert found[0] < 0.1 < 0.9 < found[2]


def test_what_no_judge_can_score_counts_as_0_and_is_counted(workspace: Workspace, clips: list[Clip]) -> None:
    judged = Reward(workspace, TinyModel().load()).judge(clips, loud(0.8, 0.0, 0.8))
    assert judged.unscored.tolist() == [False, True, False]
    assert judged.rewards[1] == 0.0
    assert judged.rewards.isfinite().all()


def test_neighbours_change_nothing(workspace: Workspace, clips: list[Clip]) -> None:
    model, latents = Reward(workspace, TinyModel().load()), loud(0.2, 0.5, 0.9)

    def reward(clips: list[Clip], latents: Latents) -> torch.Tensor:
        return model.judge(clips, latents).rewards

    together = reward(clips, latents)
    alone = torch.cat([reward(clips[i : i + 1], {"audio": latents["audio"][i : i + 1]}) for i in range(3)])
    turned = reward(clips[::-1], {"audio": latents["audio"].flip(0)}).flip(0)
    louder = reward(clips, {"audio": torch.cat([latents["audio"][:2], 50 * latents["audio"][2:]])})
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(together, turned)
    torch.testing.assert_close(together[:2], louder[:2])


def test_a_joint_models_own_picture_is_rewarded(workspace: Workspace) -> None:
    fit_to(workspace, BRIGHTNESS, 0.0, 120.0)
    clips = [grey_clip(workspace.root)] * 3
    found = Reward(workspace, Joint().load()).judge(clips, rows([5, 110, 20])).rewards
    assert found[0] < 0.1 < 0.9 < found[1]
    assert found[2] < 0.5


def test_judges_beside_the_reward_are_watched_and_asked_only_where_wanted(
    workspace: Workspace, clips: list[Clip]
) -> None:
    reward = Reward(workspace, TinyModel().load(), watch=(BRIGHTNESS,))
    assert reward.judge(clips, loud(0.5, 0.5, 0.5)).watched == {}
    judged = reward.judge(clips, loud(0.5, 0.5, 0.0), watch=True)
    assert judged.watched[BRIGHTNESS].tolist() == pytest.approx([200] * 3, abs=3)


def test_clips_are_decoded_once_and_memory_is_bounded(
    workspace: Workspace, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    original = scorer_inputs.decode_clip

    def show(root: Path, clip: Clip, *rest: Any) -> Any:
        shown.append(clip.clip_id)
        return original(root, clip, *rest)

    monkeypatch.setattr(rewards, "decode_clip", show)
    reward = Reward(workspace, TinyModel().load(), watch=(BRIGHTNESS,))
    for _ in range(2):
        reward.judge(clips[:2], loud(0.5, 0.5))
    assert len(shown) == 2
    monkeypatch.setattr(rewards, "CACHE_BYTES", 1)  # room for the one that is looked at
    reward.judge([clips[2]], loud(0.5))
    reward.judge([clips[2]], loud(0.5))
    reward.judge([clips[0]], loud(0.5))
    assert shown == [clips[0].clip_id, clips[1].clip_id, clips[2].clip_id, clips[0].clip_id]


def test_bf16_around_it_changes_nothing(workspace: Workspace, clips: list[Clip]) -> None:
    reward, latents = Reward(workspace, Multiplying().load()), loud(0.2, 0.5, 0.9)
    plain = reward.judge(clips, latents).rewards
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(reward.judge(clips, latents).rewards, plain)


class Multiplying(TinyModel):
    """A model whose decoder autocast would touch."""

    def decode(self, latents: Latents) -> torch.Tensor:
        """Decode through a matrix product, which autocast would round."""
        wave = super().decode(latents)
        return wave @ torch.eye(24).roll(1, 0) * 0.9


def test_no_reward_and_no_watch_reads_the_truth(workspace: Workspace, clips: list[Clip]) -> None:
    model = TinyModel().load()
    for oracle in ("oracle_onset/onset_f1", CHEAT):
        with pytest.raises(ValueError, match="reads the truth"):
            Reward(workspace, model, watch=(oracle,))
    forged = fit_audioscore(np.ones((2, 1)), np.eye(3)[:2], {CHEAT: "1"}, Training(num_steps=1))
    (workspace.root / "audioscore" / "forged.safetensors").write_bytes(forged.serialise())
    with pytest.raises(ValueError, match="reads the truth"):
        Reward(workspace, model, "forged")


def test_what_cannot_be_watched_is_said(workspace: Workspace, clips: list[Clip]) -> None:
    model = TinyModel().load()
    with pytest.raises(ValueError, match="is read by the reward"):
        Reward(workspace, model, watch=(LOUDNESS,))
    with pytest.raises(ValueError, match=r"there is no .*Brightness/gray; choose from .*Brightness/grey"):
        Reward(workspace, model, watch=("tests.scoring.test_scorer_inputs:Brightness/gray",))
    with pytest.raises(ValueError, match="did you mean 'world_tagger'"):
        Reward(workspace, model, watch=("world_taggr/inception",))
    with pytest.raises(ValueError, match=r"other\.safetensors is missing \(fitted: audioscore\); run fit"):
        Reward(workspace, model, "other")
