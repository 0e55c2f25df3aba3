"""Several frame streams from one decode, each as if it were the only one; all channels of a sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foleypref.media import streams
from foleypref.media.clip import MediaError, read_channels, read_clip, write_audio, write_video
from foleypref.media.streams import bicubic, read_streams, square

FPS = 25


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """8 s whose frame n is of grey level n, 96 x 64 pixels."""
    frames = np.repeat(np.arange(8 * FPS, dtype=np.uint8), 64 * 96 * 3).reshape(-1, 64, 96, 3)
    return write_video(tmp_path / "ramp.mp4", frames, FPS)


def test_each_stream_is_as_if_it_were_the_only_one(video: Path) -> None:
    wanted = (square(FPS, 48), bicubic(0.5, 32, crop=False), bicubic(4, 32, crop=True))
    together = read_streams(video, wanted, duration_s=8.0)
    assert {key: value.shape for key, value in together.items()} == {
        "square48@25": (200, 48, 48, 3),
        "short32@0.5": (4, 32, 48, 3),
        "crop32@4": (32, 32, 32, 3),
    }
    for stream in wanted:
        single = read_streams(video, (stream,), duration_s=8.0)
        assert np.array_equal(single[stream.key], together[stream.key])
    house = read_clip(video, duration_s=8.0, fps=FPS, size=48, audio=False).frames
    assert np.array_equal(house, together["square48@25"])


def test_half_a_frame_a_second_shows_what_ffmpeg_shows(video: Path) -> None:
    """The last frame before 1, 3, 5 and 7 s."""
    stream = bicubic(0.5, 64, crop=False)
    levels = read_streams(video, (stream,), duration_s=8.0)[stream.key].mean(axis=(1, 2, 3))
    assert np.abs(levels - [24, 74, 124, 174]).max() < 3


def test_one_decode_serves_all(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = streams.collect_frames
    monkeypatch.setattr(streams, "collect_frames", lambda *a, **k: calls.append(a) or original(*a, **k))
    read_streams(video, (square(FPS, 48), square(8, 48), square(FPS, 48)), duration_s=2.0)
    assert len(calls) == 1
    assert read_streams(video, (), duration_s=2.0) == {}
    assert len(calls) == 1


def test_a_window_further_in_and_a_picture_that_ends(video: Path) -> None:
    stream = square(FPS, 48)
    later = read_streams(video, (stream,), start_s=4.0, duration_s=8.0)[stream.key]
    assert len(later) == 100
    assert abs(float(later[0].mean()) - 100) < 3
    with pytest.raises(MediaError, match="ends at 8"):
        read_streams(video, (stream,), start_s=9.0, duration_s=1.0)


def test_channels_and_rate_are_the_files_own(tmp_path: Path) -> None:
    t = np.arange(11025) / 22050
    left, right = 0.5 * np.sin(2 * np.pi * 440 * t), 0.25 * np.sin(2 * np.pi * 880 * t)
    path = tmp_path / "stereo.wav"
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(path, np.stack([left, right], 1), 22050, subtype="FLOAT")
    sound, rate = read_channels(path)
    assert rate == 22050
    np.testing.assert_allclose(sound, np.stack([left, right]), atol=1e-7)
    padded, _ = read_channels(path, duration_s=1.0, pad=True)
    assert padded.shape == (2, 22050)
    assert not padded[:, 11025:].any()
    mono = write_audio(tmp_path / "mono.wav", left.astype(np.float32), 22050)
    assert read_channels(mono)[0].shape == (1, 11025)
