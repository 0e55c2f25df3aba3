"""Files that broke other readers: each is read as far as it goes, or refused in one line."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from foleypref.media.clip import MediaError, probe, read_clip, read_wave, write_video
from foleypref.media.decoding import FramePicker
from tests.media.numbered import RATE, click, numbered, numbers

CLIPS = Path(os.environ.get("FOLEYPREF_CLIPS", Path(__file__).resolve().parents[3] / "shared" / "clips"))
MEDIA = sorted(p for p in CLIPS.rglob("*.*") if p.is_file() and p.suffix != ".md")
needs_clips = pytest.mark.skipif(not MEDIA, reason="no shared clips; set FOLEYPREF_CLIPS")


def test_a_cut_off_file_gives_what_it_has(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noisy = numbered(100) ^ rng.integers(0, 16, (100, 32, 128, 3), dtype=np.uint8)
    whole = write_video(tmp_path / "x.mkv", noisy, 25, click(4, 1), RATE).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    clip = read_clip(tmp_path / "cut.mkv", duration_s=4.0, fps=25, sample_rate=16000)
    assert clip.truncated
    assert clip.frames is not None
    assert clip.video_end_s is not None
    assert 20 < len(clip.frames) < 80
    assert numbers(clip.frames) == list(range(len(clip.frames)))
    assert abs(clip.video_end_s - len(clip.frames) / 25) < 0.05
    within = read_clip(tmp_path / "cut.mkv", duration_s=0.5, fps=25, sample_rate=16000)
    assert not within.truncated  # the damage lies behind this window


@pytest.mark.parametrize("content", [b"", b"plain text, not media\n" * 40])
def test_no_media_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.mp4").write_bytes(content)
    for path in (tmp_path / "x.mp4", tmp_path / "absent.mp4"):
        with pytest.raises(MediaError, match=path.name) as caught:
            read_clip(path, duration_s=1.0, fps=25)
        assert "\n" not in str(caught.value)


@needs_clips
def test_every_shared_file_reads_or_says_why() -> None:
    unreadable = {"d03", "d04", "o55", "o56", "o59", "o61"}
    truncated = {"d07", "o53", "o54"}
    for path in MEDIA:
        start = time.perf_counter()
        tag = path.name[:3]
        try:
            clip = read_clip(path, duration_s=4.0, fps=8, size=64, sample_rate=16000)
        except MediaError:
            assert tag in unreadable, path.name
        else:
            assert tag not in unreadable, path.name
            assert clip.truncated == (tag in truncated), path.name
            assert clip.wave is None or (clip.wave.shape == (64000,) and np.isfinite(clip.wave).all())
        assert time.perf_counter() - start < 30, path.name


@needs_clips
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("odd/o15_rot90_cif_48k_mono.mp4", (288, 352)),
        ("odd/o16_rot_and_mirror.mp4", (720, 1080)),
        ("odd/o37_first_pts_10s_noaudio.mp4", (1137, 640)),
        ("odd/o39_sar_2by3.mp4", (427, 360)),
        ("odd/o40_cover_art_second_video.mp4", (640, 360)),
        ("odd/o41_cover_art_png.mkv", (640, 360)),
        ("odd/o63_nonutf8_metadata_8k_mono.3gp", (384, 288)),
    ],
)
def test_shared_files_are_shown_as_players_show_them(name: str, size: tuple[int, int]) -> None:
    info = probe(CLIPS / name)
    assert (info.width, info.height) == size
    clip = read_clip(CLIPS / name, duration_s=0.5, audio=False)
    assert clip.frames is not None
    assert clip.frames.shape[1:3] == size[::-1]


@needs_clips
def test_a_window_deep_in_a_long_file_does_not_decode_what_is_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[float] = []
    push = FramePicker.push
    monkeypatch.setattr(
        FramePicker, "push", lambda self, frame, at: (seen.append(float(at)), push(self, frame, at))
    )
    long = next(CLIPS.glob("odd/o52*"))  # 362 s at 60 fps
    clip = read_clip(long, start_s=300.0, duration_s=2.0, fps=8, size=32, sample_rate=16000)
    assert clip.frames is not None
    assert len(clip.frames) == 16
    assert min(seen) > -30  # one group of pictures before the window
    assert max(seen) < 2.1


@needs_clips
def test_a_known_onset_is_found_where_it_is() -> None:
    wave, rate = read_wave(CLIPS / "a01_hand_counting.mp4", 16000, duration_s=4.5)
    level = np.abs(wave[: 4 * rate + rate // 2]).reshape(-1, rate // 100).max(axis=1)
    loud = level > 0.1 * level.max()
    starts = [i / 100 for i in range(40, len(loud)) if loud[i] and not loud[i - 40 : i].any()]
    assert all(any(abs(s - t) < 0.06 for s in starts) for t in (1.05, 1.97, 2.91, 3.89)), starts
