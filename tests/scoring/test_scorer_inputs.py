"""Inputs of scorers: the clip's picture for a sound model, the candidate's own for a joint one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from foleypref.flow.convention import Latents
from foleypref.media.clip import write_video
from foleypref.media.streams import FrameStream, bicubic, frames_of, read_streams, square
from foleypref.models.backbones import ModelSpec, VideoSpec
from foleypref.score import ScoreSettings, score
from foleypref.scoring.scorer_inputs import decode_clip, decode_latents, evaluated_seconds, make_score_item
from foleypref.scoring.scorers import Judgement, ScoreItem, Scorer
from foleypref.scoring.scorers._pictured import once_per_clip
from foleypref.workspace.paths import WorkspacePaths
from foleypref.workspace.records import GROUND_TRUTH, Candidate, Clip, Feature, Score
from foleypref.workspace.store import Workspace
from tests.tiny import TinyModel

FPS, SIDE, FILE_GREY = 8, 16, 200
STREAM = square(4, 8)


class Joint(TinyModel):
    """A joint model whose picture is as bright as its video latents, and brightens by the frame."""

    joint: bool = True

    @property
    def spec(self) -> ModelSpec:
        """One second of eight frames."""
        return dataclasses.replace(super().spec, video=VideoSpec(FPS, SIDE, SIDE, float(FPS)))

    def decode_video(self, latents: Latents) -> Tensor:
        """(B, 8, 16, 16, 3)."""
        grey = latents["video"].flatten(1).mean(1)[:, None] + torch.arange(FPS)
        return grey[:, :, None, None, None].repeat(1, 1, SIDE, SIDE, 3).to(torch.uint8)


class Brightness(Scorer):
    """A judge of the picture's first frame, which looks once at each clip."""

    needs: ClassVar[frozenset[str]] = frozenset({"audio", "video"})
    dimensions: ClassVar[tuple[str, ...]] = ("grey",)
    higher_is_better: ClassVar[dict[str, bool]] = {"grey": True}
    version: ClassVar[str] = "1"

    @property
    def streams(self) -> tuple[FrameStream, ...]:
        return (STREAM,)

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Return the mean grey level of the first frame."""
        seen: dict[str, Tensor] = {}
        return Judgement({"grey": [float(self._look(i, seen)) for i in items]}, {})

    @staticmethod
    def _look(item: ScoreItem, seen: dict[str, Tensor]) -> Tensor:
        frames = item.frames[STREAM.key]
        return once_per_clip(item, seen, lambda: torch.tensor(float(frames[0].mean())))


def rows(greys: Sequence[float]) -> Latents:
    """Latents of a joint model whose pictures start at these grey levels."""
    generator = torch.Generator().manual_seed(0)
    audio = torch.randn(len(greys), 6, 4, generator=generator)
    return {
        "audio": audio,
        "video": torch.tensor(greys, dtype=torch.float32)[:, None, None, None].repeat(1, 2, 3, 2),
    }


def grey_clip(folder: Path) -> Clip:
    """One second of grey with a tone."""
    frames = np.full((25, SIDE, SIDE, 3), FILE_GREY, np.uint8)
    wave = np.sin(np.arange(16000) / 10).astype(np.float32) / 2
    write_video(folder / "grey.mp4", frames, 25, wave, 16000)
    return Clip(Clip.make_id("grey", 0.0, 1.0), "grey.mp4", "align", "grey", 0.0, 1.0, 25.0, SIDE, SIDE, True)


def test_a_sound_model_is_judged_by_the_clips_picture(tmp_path: Path) -> None:
    clip = grey_clip(tmp_path)
    decoded = decode_clip(WorkspacePaths(tmp_path), clip, (STREAM,), 1.0)
    model = TinyModel().load()
    rendered = decode_latents(model, {"audio": rows([0, 0])["audio"]}, (STREAM,), [1.0, 1.0])
    items = [make_score_item(f"c{row}", decoded, one) for row, one in enumerate(rendered)]
    for item, wave in zip(items, model.decode(rows([0, 0])).numpy(), strict=True):
        assert item.frames is decoded.frames
        assert item.clip_id == clip.clip_id
        np.testing.assert_array_equal(item.wave, wave)
        assert item.sample_rate == model.spec.sample_rate
        assert item.reference is not None
        assert item.reference_rate == 16000
    assert abs(float(decoded.frames[STREAM.key].mean()) - FILE_GREY) < 3


def test_a_joint_models_candidate_has_its_own_picture(tmp_path: Path) -> None:
    decoded = decode_clip(WorkspacePaths(tmp_path), grey_clip(tmp_path), (STREAM,), 1.0)
    rendered = decode_latents(Joint().load(), rows([30, 90]), (STREAM,), [1.0, 0.5])
    items = [make_score_item(f"c{row}", decoded, one) for row, one in enumerate(rendered)]
    # 8 frames a second at 4: the last of every two that rounds to the slot, as ffmpeg's rule has it
    assert items[0].frames[STREAM.key].mean((1, 2, 3)).tolist() == [30, 32, 34, 36]
    assert items[1].frames[STREAM.key].mean((1, 2, 3)).tolist() == [90, 92]
    assert len({item.clip_id for item in items} | {decoded.clip.clip_id}) == 3


def test_scoring_sees_what_a_joint_model_made_and_the_truth_in_the_file(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    clip = dataclasses.replace(grey_clip(tmp_path), path=str(tmp_path / "grey.mp4"))
    model = Joint().load()
    ids = [Candidate.make_id(clip.clip_id, "joint", "w", seed, "euler", 4, 1.0) for seed in range(2)]
    shard = workspace.write_rows("latents", ids, rows([30, 90]))
    candidates = [
        Candidate(i, clip.clip_id, "joint", "w", n, "euler", 4, 1.0, shard, n) for n, i in enumerate(ids)
    ]
    workspace.append([clip, *candidates])
    name = f"{__name__}:Brightness"
    settings = ScoreSettings(scorers=(name,), optional_scorers=(), model=model)
    assert score(workspace, settings).failed == 0
    truth = next(c.candidate_id for c in workspace.read(Candidate) if c.model == GROUND_TRUTH)
    scores = {s.candidate_id: s.value for s in workspace.read(Score)}
    assert [scores[i] for i in ids] == [30, 90]
    assert scores[truth] == pytest.approx(FILE_GREY, abs=3)
    assert workspace.read(Feature) == []


def test_what_is_judged_is_what_clip_and_model_both_have() -> None:
    clip = Clip("c", "c.mp4", "align", "", 0.0, 4.0, 25.0, SIDE, SIDE, True)
    assert evaluated_seconds(clip, None) == 4.0
    assert evaluated_seconds(clip, TinyModel()) == 1.0


def test_damage_is_said_and_the_rest_is_shown(tmp_path: Path) -> None:
    clip = dataclasses.replace(grey_clip(tmp_path), path="missing.mp4")
    decoded = decode_clip(WorkspacePaths(tmp_path), clip, (STREAM,), 1.0)
    assert (decoded.frames, decoded.sound) == ({}, None)
    assert "missing.mp4" in decoded.damage
    (rendered,) = decode_latents(TinyModel().load(), rows([0]), (STREAM,), [1.0])
    assert make_score_item("c", decoded, rendered).reference is None
    with pytest.raises(ValueError, match=r"missing\.mp4"):
        make_score_item("truth", decoded, None)


@pytest.mark.parametrize("fps", [25.0, 8.0, 24000 / 1001])
def test_frames_of_an_array_are_those_of_its_file(fps: float, tmp_path: Path) -> None:
    frames = np.repeat(np.arange(48, dtype=np.uint8) * 5, 32 * 48 * 3).reshape(48, 32, 48, 3)
    write_video(tmp_path / "ramp.mp4", frames, fps)
    streams = (square(25, 16), bicubic(4, 16, crop=False), bicubic(0.5, 16, crop=True))
    filed = read_streams(tmp_path / "ramp.mp4", streams, duration_s=1.5)
    memory = frames_of(frames, fps, streams, duration_s=1.5)
    assert {key: value.shape for key, value in memory.items()} == {k: v.shape for k, v in filed.items()}
    for key, value in memory.items():  # the file lost some grey levels on its way
        assert np.abs(value.astype(int) - filed[key]).mean((1, 2, 3)).max() < 3, key
    whole = frames_of(frames, fps, (square(fps, 32),))
    assert np.array_equal(whole[f"square32@{fps:g}"], frames[:, :, 8:40])
    assert frames_of(frames, fps, ()) == {}
