"""Ingest against truth: every file becomes one clip or one failure with its reason, also after kill -9."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from foleypref.ingest import IngestSettings, ingest, split_of
from foleypref.media.clip import write_audio, write_video
from foleypref.media.subprocess_probe import probe_in_subprocesses
from foleypref.workspace.records import Clip, Failure
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import StageCount

CLIPS = Path(os.environ.get("FOLEYPREF_CLIPS", Path(__file__).resolve().parents[2] / "shared" / "clips"))
RATE = 16000


def video(path: Path, seconds: float = 1.0, shade: int = 0, sound: float | None = 0.5) -> Path:
    """A small video whose bytes depend on `shade`; sound is the level of a tone, None for no audio stream."""
    frames = np.full((round(seconds * 10), 32, 32, 3), shade, np.uint8)
    wave = None
    if sound is not None:
        wave = (sound * np.sin(np.arange(round(seconds * RATE)) * 0.2)).astype(np.float32)
    return write_video(path, frames, 10, wave, RATE)


def run(root: Path, folder: Path, **settings: object) -> tuple[StageCount, dict[str, Clip], list[str]]:
    """Ingest and return the count, the clips by file name, and the sorted reasons of failures."""
    workspace = Workspace(root)
    options = {"duration_s": 1.0, "num_workers": 2, **settings}
    count = ingest(workspace, IngestSettings.model_validate({"folder": folder, **options}))
    clips = {Path(clip.path).name: clip for clip in workspace.read(Clip)}
    return count, clips, sorted(failure.reason for failure in workspace.read(Failure))


def test_each_kind_of_file_becomes_a_clip_or_a_reason(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    video(folder / "b/good.mp4", 2.0, 10)
    video(folder / "mute.mp4", 2.0, 20, sound=None)
    video(folder / "silent.mp4", 2.0, 30, sound=0.0)
    video(folder / "brief.mp4", 0.5, 40)
    video(folder / "short.mp4", 1.2, 50)
    video(folder / ".hidden/x.mp4", 2.0, 60)
    shutil.copy(folder / "mute.mp4", folder / "mute_again.mp4")
    (folder / "text.mp4").write_text("no media")
    (folder / "notes.txt").write_text("not even a video's name")
    write_audio(folder / "song.m4a", np.full(RATE, 0.1, np.float32), RATE).rename(folder / "song.mp4")
    count, clips, reasons = run(tmp_path / "w", folder, duration_s=1.5)
    assert (count.done, count.skipped, count.failed) == (4, 0, 4)
    assert {name: (c.duration_s, c.has_audio) for name, c in clips.items()} == {
        "good.mp4": (1.5, True),
        "mute.mp4": (1.5, False),
        "silent.mp4": (1.5, False),
        "short.mp4": (1.2, True),
    }
    assert clips["silent.mp4"].meta == {"ingest": "silent audio"}
    assert (clips["good.mp4"].fps, clips["good.mp4"].width, clips["good.mp4"].height) == (10, 32, 32)
    assert Path(clips["good.mp4"].path).is_absolute()
    words = (
        "0.50 s of its picture",
        "song.mp4: no video stream",
        "does not open",
        "same content as mute.mp4",
    )
    assert len(reasons) == 4
    assert all(any(word in reason for reason in reasons) for word in words), reasons
    again, clips_again, reasons_again = run(tmp_path / "w", folder, duration_s=1.5)
    assert (again.done, again.skipped, again.failed) == (0, 4, 4)
    assert (clips_again, reasons_again) == (clips, reasons)


def test_a_cut_off_file_is_a_shorter_clip(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 32, 32, 3), dtype=np.uint8)
    whole = write_video(tmp_path / "v/whole.mkv", noise, 20).read_bytes()
    (tmp_path / "v/whole.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    _, clips, _ = run(tmp_path / "w", tmp_path / "v", duration_s=3.0)
    clip = clips["whole.mkv"]
    assert 1.5 < clip.duration_s < 2.2
    assert "truncated" in clip.meta["ingest"]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_is_read_and_kept(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "v"
    for shade, name in enumerate(("a.mp4", "sub/b.mp4", "c.mp4")):
        video(folder / name, shade=shade * 40)
    rows = [
        {"file_name": "a.mp4", "prompt": 'A dog, "barking" — löud', "split": "test", "label": "dog"},
        {"file_name": "sub/b.mp4", "prompt": "rain", "split": "", "label": "water"},
        {"file_name": "gone.mp4", "prompt": "wind", "split": "", "label": "air"},
    ]
    if kind == "csv":
        quoted = [",".join('"' + v.replace('"', '""') + '"' for v in row.values()) for row in rows]
        text = "\ufeff" + "\n".join([",".join(rows[0]), *quoted])  # as spreadsheets save it
    else:
        rows[1]["caption"] = rows[1].pop("prompt")
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n"
    (folder / f"metadata.{kind}").write_text(text, encoding="utf-8")
    count, clips, reasons = run(tmp_path / "w", folder)
    assert (count.done, count.failed) == (3, 1)
    assert clips["a.mp4"].prompt == 'A dog, "barking" — löud'
    assert clips["a.mp4"].split == "test"
    assert (clips["b.mp4"].prompt, clips["b.mp4"].meta) == ("rain", {"label": "water"})
    assert clips["c.mp4"].prompt == ""
    assert "gone.mp4" in reasons[0]
    assert "not there" in reasons[0]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("metadata.csv", b"video,prompt\na.mp4,dog\n", "no file_name column"),
        ("metadata.csv", b"file_name,prompt\na.mp4,dog, barking\n", "line 2 has more cells"),
        ("metadata.csv", b"file_name,prompt\na.mp4,dog\na.mp4,cat\n", "line 3 names a.mp4 a second time"),
        ("metadata.csv", b"file_name,prompt\na.mp4,\xff\xfe\n", "is not UTF-8"),
        ("metadata.jsonl", b'{"file_name": "a.mp4"}\n{oops}\n', "line 2 is not JSON"),
        ("metadata.jsonl", b'["a.mp4"]\n', "line 1 is a list"),
    ],
)
def test_bad_metadata_stops_the_stage_with_one_line(
    tmp_path: Path, name: str, text: bytes, words: str
) -> None:
    video(tmp_path / "v/a.mp4")
    (tmp_path / "v" / name).write_bytes(text)
    with pytest.raises(ValueError, match=words):
        run(tmp_path / "w", tmp_path / "v")


def test_missing_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        run(tmp_path / "w", tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no video"):
        run(tmp_path / "w", tmp_path / "empty")


def test_the_split_follows_the_bytes(tmp_path: Path) -> None:
    for index in range(12):
        video(tmp_path / f"v/{index}.mp4", shade=index * 20)
    shares = {"validation_share": 0.3, "test_share": 0.3}
    _, first, _ = run(tmp_path / "w1", tmp_path / "v", **shares)
    (tmp_path / "u/deep").mkdir(parents=True)
    for index in range(12):
        shutil.copy(tmp_path / f"v/{index}.mp4", tmp_path / f"u/deep/moved{11 - index}.mp4")
    _, moved, _ = run(tmp_path / "w2", tmp_path / "u", **shares)
    _, other_trim, _ = run(tmp_path / "w3", tmp_path / "v", **shares, duration_s=0.8)
    ids = {clip.clip_id: clip.split for clip in first.values()}
    assert len(ids) == 12
    assert {clip.clip_id: clip.split for clip in moved.values()} == ids
    assert {name: clip.split for name, clip in other_trim.items()} == {n: c.split for n, c in first.items()}
    assert not {clip.clip_id for clip in other_trim.values()} & ids.keys()
    splits = [split_of(f"{index:064x}", 0.1, 0.2) for index in range(4000)]
    assert abs(splits.count("test") / 4000 - 0.2) < 0.03
    assert abs(splits.count("validation") / 4000 - 0.1) < 0.03


def test_files_that_hang_or_crash_cost_no_other(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "hang.mp4")  # opening it waits for ever
    good = [str(video(tmp_path / f"{index}.mp4", shade=index)) for index in range(4)]
    jobs: list[tuple[str, float, float]] = [(path, 0.0, 1.0) for path in good]
    jobs.insert(1, (str(tmp_path / "hang.mp4"), 0.0, 1.0))
    jobs.insert(3, (str(tmp_path / "0.mp4"), "no number", 1.0))  # type: ignore[arg-type]  # ends the child
    start = time.perf_counter()
    trials = dict(probe_in_subprocesses(jobs, 2, 3.0))
    assert time.perf_counter() - start < 12
    assert [bool(trials[index].reason) for index in range(6)] == [False, True, False, True, False, False]
    assert "not decoded within 3 s" in trials[1].reason
    assert "ended the process" in trials[3].reason


def test_the_workspace_inside_the_folder_is_left_out(tmp_path: Path) -> None:
    video(tmp_path / "v/a.mp4")
    workspace = Workspace(tmp_path / "v/work")
    video(workspace.root / "runs/out.mp4", shade=90)
    assert ingest(workspace, IngestSettings(folder=tmp_path / "v", duration_s=1.0)).done == 1


def test_resume_after_kill_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    for index in range(80):
        video(folder / f"{index:02}.mp4", shade=index * 3, sound=None)
    code = (
        "from foleypref.ingest import *\n"
        f"ingest(Workspace({str(tmp_path / 'w')!r}), IngestSettings(folder={str(folder)!r}, duration_s=1.0))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    parts = tmp_path / "w/tables/clips"
    deadline = time.perf_counter() + 60
    while not list(parts.glob("*.parquet")) and time.perf_counter() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it finished before it could be killed"
    before = len(Workspace(tmp_path / "w").ids(Clip))
    assert 0 < before < 80
    count, _, _ = run(tmp_path / "w", folder)
    assert (count.done, count.skipped) == (80 - before, before)
    run(tmp_path / "unbroken", folder)
    unbroken = {p.name: p.read_bytes() for p in (tmp_path / "unbroken/tables/clips").glob("*.parquet")}
    assert {p.name: p.read_bytes() for p in parts.glob("*.parquet")} == unbroken


@pytest.mark.skipif(not CLIPS.is_dir(), reason="no shared clips; set FOLEYPREF_CLIPS")
def test_every_shared_video_is_a_clip_or_a_reason(tmp_path: Path) -> None:
    count, clips, reasons = run(tmp_path / "w", CLIPS, duration_s=4.0)
    total = sum(
        p.suffix in (".mp4", ".webm", ".mov", ".mkv", ".avi", ".flv", ".3gp") for p in CLIPS.rglob("*")
    )
    assert count.done + count.failed == total == len(clips) + len(reasons)
    assert all(": " in reason for reason in reasons)
    assert clips["d07_truncated60_faststart.mp4"].duration_s == pytest.approx(1.668, abs=0.002)
    assert not clips["o07_black_silent_10s.mp4"].has_audio
    assert any("o51_audio_only.mp4: no video stream" in reason for reason in reasons)
    assert any("o54_invalid_nalu.mp4: only 0.87 s" in reason for reason in reasons)
