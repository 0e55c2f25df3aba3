"""Folders of sounds against videos: truth against itself, noise, missing and damaged files, one table."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foleypref.benchmark import BenchmarkSettings, benchmark, import_folders
from foleypref.cli import main as cli
from foleypref.evaluation.metrics.frechet import Frechet
from foleypref.evaluation.metrics.inception import Inception
from foleypref.evaluation.metrics.kl import KL
from foleypref.evaluation.metrics.mean import Mean
from foleypref.evaluation.result import Evaluation, SystemRow
from foleypref.media.clip import MediaError, read_channels, write_audio
from foleypref.scoring import scorer_inputs
from foleypref.workspace.records import Candidate, Clip, Failure
from foleypref.workspace.store import Workspace
from foleypref.world.make import make
from foleypref.world.settings import MakeSettings

METRICS = (
    Frechet(embedding="world_tagger/features", paired=False, label="FD"),
    KL(embedding="world_tagger/logits", label="KL"),
    Inception(embedding="world_tagger/logits", splits=1, label="IS"),
    Mean(dimension="world_semantic/similarity", scale=100.0, label="IB"),
    Mean(dimension="world_sync/desync_s", higher_is_better=False, label="DeSync", unit="s"),
)
NUM = 8


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """videos/, true/ (their own sound), late/ (0.4 s late) and noise/."""
    root = tmp_path_factory.mktemp("benchmark")
    settings = MakeSettings(split="judge", num_clips=NUM, out=root / "videos", num_workers=1)
    make(settings, quiet=True)
    (root / "videos" / "metadata.jsonl").unlink()
    generator = np.random.default_rng(0)
    for video in sorted((root / "videos").glob("*.mp4")):
        sound, rate = read_channels(video, duration_s=4.0, pad=True)
        wave = sound.mean(0)
        for name, made in {
            "true": wave,
            "late": np.concatenate([np.zeros(int(0.4 * rate), np.float32), wave])[: len(wave)],
            "noise": 0.1 * generator.standard_normal(len(wave)).astype(np.float32),
        }.items():
            (root / name).mkdir(exist_ok=True)
            write_audio(root / name / f"{video.stem}.wav", made, rate)
    return root


def settings(folders: Path, workspace: Path, **more: object) -> BenchmarkSettings:
    values = {
        "against": folders / "videos", "workspace": workspace, "seconds": 4.0, "metrics": METRICS,
        "scorers": ("world_tagger", "world_semantic", "world_sync"), "num_resamples": 20, **more,
    }  # fmt: skip
    return BenchmarkSettings(**values)  # type: ignore[arg-type]


def table(found: Evaluation) -> dict[str, dict[str, float]]:
    labels = [column.label for column in found.columns]
    return {row.system: dict(zip(labels, (c.value for c in row.cells))) for row in found.rows}


def row_of(found: Evaluation, system: str) -> SystemRow:
    return next(row for row in found.rows if row.system == system)


def test_the_truth_is_itself_and_what_is_wrong_shows(folders: Path, tmp_path: Path) -> None:
    found = benchmark([folders / n for n in ("true", "late", "noise")], settings(folders, tmp_path / "ws"))
    values = table(found)
    assert list(values) == ["true", "late", "noise", "ground_truth"]
    # sound files hold 16 bits
    for label, value in values["ground_truth"].items():
        assert values["true"][label] == pytest.approx(value, rel=0.01, abs=0.02), label
    assert values["late"]["DeSync"] > values["true"]["DeSync"] + 0.2
    assert values["noise"]["KL"] > 1
    assert values["noise"]["FD"] > values["late"]["FD"]
    assert values["noise"]["IB"] < values["true"]["IB"]
    assert abs(values["true"]["IB"]) > 1  # printed times a hundred
    assert row_of(found, "late").cells[-1].difference is not None


def test_what_is_missing_is_counted_and_costs_nothing_else(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = tmp_path / "part"
    shutil.copytree(folders / "true", part)
    sounds = sorted(part.glob("*.wav"))
    sounds[0].unlink()  # a video without a sound
    sounds[1].write_bytes(b"RIFF, or so it says")  # a sound that does not decode
    shutil.copy(sounds[2], part / "nobodys.wav")  # a sound without a video
    found = benchmark([part], settings(folders, tmp_path / "ws"))
    said = " ".join(capsys.readouterr().err.split())
    assert f"{NUM - 1} sounds with their video, 1 videos without a sound, 1 sounds without a video" in said
    assert "does not open as media" in said
    row = row_of(found, "part")
    counts = {column.label: cell.n for column, cell in zip(found.columns, row.cells)}
    assert counts == {"FD": NUM - 1, "KL": NUM - 2, "IS": NUM - 1, "IB": NUM - 2, "DeSync": NUM - 2}
    whole = table(benchmark([folders / "true"], settings(folders, tmp_path / "other")))
    assert table(found)["ground_truth"] == pytest.approx(whole["ground_truth"])


def test_the_sound_for_a_damaged_video_is_judged_without_it(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = sorted((folders / "videos").glob("*.mp4"))[0]

    def read_streams(path: Path, *args: Any, **more: Any) -> Any:
        if Path(path).name == victim.name:  # its header stands, nothing of it decodes
            raise MediaError(f"{path}: no frame of its picture decodes")
        return original(path, *args, **more)

    original = scorer_inputs.read_streams
    monkeypatch.setattr(scorer_inputs, "read_streams", read_streams)
    found = benchmark([folders / "true"], settings(folders, tmp_path / "ws"))
    counts = {c.label: cell.n for c, cell in zip(found.columns, row_of(found, "true").cells)}
    assert counts == {"FD": NUM, "KL": NUM, "IS": NUM, "IB": NUM - 1, "DeSync": NUM - 1}
    (failure,) = {f.reason for f in Workspace(tmp_path / "ws").read(Failure)}
    assert victim.name in failure


def test_scores_are_kept_and_a_changed_file_is_scored_again(folders: Path, tmp_path: Path) -> None:
    system = tmp_path / "true"
    shutil.copytree(folders / "true", system)
    first = benchmark([system], settings(folders, tmp_path / "ws"))
    names = {p.name for p in (tmp_path / "ws" / "tables" / "scores").iterdir()}
    assert table(benchmark([system], settings(folders, tmp_path / "ws"))) == table(first)
    assert {p.name for p in (tmp_path / "ws" / "tables" / "scores").iterdir()} == names
    for path in system.glob("*.wav"):
        shutil.copy(folders / "noise" / path.name, path)
    changed = table(benchmark([system], settings(folders, tmp_path / "ws")))
    assert changed["true"]["KL"] > table(first)["true"]["KL"] + 1


def test_names_are_cleaned_only_where_the_name_itself_is_no_videos(folders: Path, tmp_path: Path) -> None:
    videos, sounds = tmp_path / "videos", tmp_path / "sounds"
    videos.mkdir()
    sounds.mkdir()
    source = sorted((folders / "videos").glob("*.mp4"))
    for name, path in zip(("zxpo56cpUBU_000007", "abcdefghijklmnopqrst"), source):
        shutil.copy(path, videos / f"{name}.mp4")
    sound = next(iter((folders / "true").glob("*.wav")))
    for name in ("000000014_zxpo56cpUBU_000007-0", "abcdefghijklmnopqrst"):
        shutil.copy(sound, sounds / f"{name}.wav")
    workspace = Workspace(tmp_path / "ws")
    split, _ = import_folders(workspace, videos, {"sounds": sounds}, 4.0)
    clips = {c.clip_id: c for c in workspace.read(Clip) if c.split == split}
    paired = {Path(c.sound).stem: clips[c.clip_id].meta["name"] for c in workspace.read(Candidate)}
    assert paired == {
        "000000014_zxpo56cpUBU_000007-0": "zxpo56cpUBU_000007",
        "abcdefghijklmnopqrst": "abcdefghijklmnopqrst",
    }
    assert not workspace.read(Failure)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere", "--against", "videos"], "nowhere: no such folder"),
        (["true", "--against", "nowhere"], "nowhere: no such folder"),
        (["true", "--against", "empty"], "empty: holds no videos"),
        (["true", "--against", "other"], "no sound has the name of a video"),
        (["true", "--compare", "true", "--against", "videos"], "a folder is given twice"),
        (["--against", "videos"], "wants its SOUNDS"),
    ],
)
def test_a_mistake_is_one_line(
    folders: Path, args: list[str], message: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(folders)
    (folders / "empty").mkdir(exist_ok=True)
    (folders / "other").mkdir(exist_ok=True)
    shutil.copy(next((folders / "videos").glob("*.mp4")), folders / "other" / "unheard-of.mp4")
    assert cli.main(["evaluate", *args, "--workspace", str(tmp_path / "ws")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[-1]
    assert not any("Traceback" in line for line in lines)
