"""The frozen marginal: made of true sound once, the same for ever, and carried by AudioScore's file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from foleypref.fit import FitSettings, fit
from foleypref.published.taggers import Tags
from foleypref.sample import SampleSettings, sample
from foleypref.score import ScoreSettings, score
from foleypref.scoring.scorers import ScoreItem, panns
from foleypref.scoring.scorers.audioscore import AudioScore, Fitted
from foleypref.scoring.scorers.panns import NO_MARGINAL, read_marginal
from foleypref.workspace.records import GROUND_TRUTH, Candidate, Clip, Feature, Rating, Score
from foleypref.workspace.store import Workspace
from tests.judged import scores_of
from tests.world_workspace import NUM_CLIPS, world_workspace

SETTINGS = ScoreSettings(scorers=("panns",), optional_scorers=(), batch_size=5)


class Listener(nn.Module):
    """527 logits that depend on the sound: the level of 527 stretches of it."""

    min_samples = 5000

    def speed_up(self, device: torch.device | str) -> Listener:
        return self

    def tags(self, waves: list[Tensor]) -> Tags:
        parts = [torch.stack([p.square().mean() for p in wave.tensor_split(527)]) for wave in waves]
        logits = (torch.stack(parts) + 1e-6).log()
        return Tags(logits, torch.zeros(len(waves), 2048))


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """PANNs with a small listener in place of its network; the file only has a hash."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "Cnn14_16k_mAP=0.438.pth").write_bytes(b"weights")
    monkeypatch.setenv("FOLEYPREF_WEIGHTS", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(panns, "load_panns", lambda *_: Listener())
    monkeypatch.setattr(panns, "tag", lambda network, waves: network.tags(waves))
    return folder


def workspace_of(folder: Path) -> Workspace:
    workspace = world_workspace(folder)
    sample(workspace, SampleSettings(num_candidates=2, num_steps=2, guidance_scale=1.0))
    return workspace


def inception(workspace: Workspace) -> dict[str, Any]:
    return {s.candidate_id: s for s in workspace.read(Score) if s.dimension == "inception"}


def test_it_is_the_mean_posterior_of_the_clips_own_sound(weights: Path, tmp_path: Path) -> None:
    workspace = workspace_of(tmp_path)
    score(workspace, SETTINGS)
    scores = inception(workspace)
    assert len(scores) == 3 * NUM_CLIPS
    assert all(s.value is not None and s.value >= 0 for s in scores.values())
    truths = [c for c in workspace.read(Candidate) if c.model == GROUND_TRUTH]
    q = read_marginal(workspace.marginal("panns"))
    rows = {f.item_id: f for f in workspace.read(Feature)}
    p = torch.stack([workspace.rows([rows[c.candidate_id]])["logits"][0].double().softmax(0) for c in truths])
    torch.testing.assert_close(q, p.mean(0))
    for row, truth in zip(p, truths):
        expected = float((row * (row.log() - q.log())).sum())
        assert scores[truth.candidate_id].value == pytest.approx(expected, rel=1e-6)


def test_it_does_not_move_when_more_is_scored(weights: Path, tmp_path: Path) -> None:
    workspace = workspace_of(tmp_path)
    score(workspace, SETTINGS)
    before, content = inception(workspace), workspace.marginal("panns").read_bytes()
    sample(workspace, SampleSettings(num_candidates=3, num_steps=2, guidance_scale=1.0))
    score(workspace, SETTINGS)
    after = inception(workspace)
    assert len(after) == len(before) + NUM_CLIPS
    assert all(after[key] == before[key] for key in before)
    assert workspace.marginal("panns").read_bytes() == content


def test_audioscore_carries_it_to_another_workspace(weights: Path, tmp_path: Path) -> None:
    workspace = workspace_of(tmp_path)
    score(workspace, SETTINGS)
    sampled = [c for c in workspace.read(Candidate) if c.model != GROUND_TRUTH]
    ratings = [Rating.make(c.candidate_id, "r", i % 3, "human") for i, c in enumerate(sampled)]
    workspace.append(ratings)
    settings = FitSettings(min_ratings=6, folds=2, num_steps=5)
    report = fit(workspace, settings)
    assert set(report.dimensions) == {"panns/inception", "panns/confidence"}
    assert report.left_out["panns/speech"] == "no quality"
    path = workspace.root / "audioscore" / "audioscore.safetensors"
    marginal = workspace.marginal("panns").read_bytes()
    assert Fitted.read(path).marginals == {"panns": marginal}
    assert AudioScore(weights=str(path)).load().version == report.version
    workspace.marginal("panns").unlink()  # somewhere else there is none
    generator = np.random.default_rng(0)
    item = ScoreItem("a", 0.1 * generator.standard_normal(64000).astype(np.float32), 16000)
    scores = scores_of(AudioScore(weights=str(path)).load(), [item])
    assert sum(s.value or 0 for s in scores) == pytest.approx(1.0)
    card = path.with_suffix(".md").read_text()
    assert "panns/inception" in card
    assert "CC-BY-4.0" in card
    assert f"{report.accuracy:.3f}" in card


def test_without_true_sound_there_is_none_and_scores_say_so(weights: Path, tmp_path: Path) -> None:
    workspace = workspace_of(tmp_path)
    clips = workspace.read(Clip)
    workspace.replace_table(Clip, [dataclasses.replace(c, split="test") for c in clips])
    score(workspace, SETTINGS)
    assert {s.reason for s in inception(workspace).values()} == {NO_MARGINAL}
