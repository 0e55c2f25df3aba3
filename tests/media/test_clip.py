"""Reading against truth: which frame is frame n, where a sound starts, which way up a picture is."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from foleypref.media.clip import MediaError, mux, probe, read_clip, read_wave, write_audio, write_video
from foleypref.media.decoding import orient
from tests.media.numbered import RATE, click, encode, numbered, numbers, onset

# -- writing and reading back ----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_frames_and_sound_come_back_where_they_were(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"deep/er/x{suffix}", numbered(50), 25, click(2, 1.2), RATE)
    clip = read_clip(path, duration_s=2.0, fps=25, sample_rate=16000)
    assert clip.frames is not None
    assert clip.wave is not None
    assert numbers(clip.frames) == list(range(50))
    assert clip.wave.shape == (32000,)
    assert abs(onset(clip.wave, 16000) - 1.2) < 0.002  # frame 30 is shown at 1.2 s
    assert not clip.truncated
    assert (clip.info.width, clip.info.height, clip.info.fps) == (128, 32, 25)


@pytest.mark.parametrize(("start_s", "first"), [(1.0, 25), (5.0, 125), (6.52, 163)])
def test_a_later_window_keeps_both_clocks(tmp_path: Path, start_s: float, first: int) -> None:
    path = write_video(tmp_path / "x.mp4", numbered(200), 25, click(8, start_s + 0.4), RATE)
    clip = read_clip(path, start_s=start_s, duration_s=1.0, fps=25, sample_rate=48000)
    assert clip.frames is not None
    assert clip.wave is not None
    assert numbers(clip.frames) == list(range(first, first + 25))
    assert abs(onset(clip.wave, 48000) - 0.4) < 0.002


def test_writing_is_deterministic(tmp_path: Path) -> None:
    a = write_video(tmp_path / "a.mp4", numbered(12), 12, click(1, 0.5), RATE).read_bytes()
    b = write_video(tmp_path / "b.mp4", numbered(12), 12, click(1, 0.5), RATE).read_bytes()
    assert a == b
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]  # nothing temporary stays


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a"])
def test_sound_files_keep_time(tmp_path: Path, suffix: str) -> None:
    path = write_audio(tmp_path / f"x{suffix}", click(2, 1.2), RATE)
    wave, rate = read_wave(path, RATE)
    assert rate == RATE
    assert abs(len(wave) - 2 * RATE) < 0.05 * RATE
    assert abs(onset(wave, rate) - 1.2) < 0.002


def test_wav_is_16_bit_exact_and_nan_becomes_silence(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).uniform(-0.9, 0.9, 8000).astype(np.float32)
    back, rate = read_wave(write_audio(tmp_path / "x.wav", wave, 16000))
    assert rate == 16000
    assert np.abs(back - wave).max() < 1.01 / 32768
    wave[100:200] = np.nan
    assert not read_wave(write_audio(tmp_path / "x.wav", wave, 16000))[0][100:200].any()


def test_equal_channels_mix_down_to_the_same_level(tmp_path: Path) -> None:
    tone = (0.5 * np.sin(np.arange(RATE) * 0.05)).astype(np.float32)
    with av.open(str(tmp_path / "x.wav"), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=RATE, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.stack([tone, tone]), format="fltp", layout="stereo")
        frame.sample_rate = RATE
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    assert np.abs(read_wave(tmp_path / "x.wav")[0] - tone).max() < 1e-3


@pytest.mark.parametrize(
    ("name", "frames", "words"),
    [
        ("x.mp4", np.zeros((3, 31, 32, 3), np.uint8), "even"),
        ("x.mp4", np.zeros((3, 32, 32), np.uint8), "T, H, W, 3"),
        ("x.webm", np.zeros((3, 32, 32, 3), np.uint8), ".mp4"),
        ("x.gif", np.zeros((3, 32, 32, 3), np.uint8), ".mp4"),
    ],
)
def test_refused_writes_say_what_to_do(tmp_path: Path, name: str, frames: np.ndarray, words: str) -> None:
    with pytest.raises(MediaError, match=words):
        write_video(tmp_path / name, frames, 25)
    assert not list(tmp_path.iterdir())


# -- which frame is frame n ------------------------------------------------------------------------------


def fps_filter(path: Path, fps: int) -> list[int]:
    """The frame numbers that ffmpeg's own filter picks."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        graph = av.filter.Graph()
        source = graph.add_buffer(template=stream)
        sink = graph.add("buffersink")
        rate = graph.add("fps", f"fps={fps}")
        source.link_to(rate)
        rate.link_to(sink)
        graph.configure()
        picked: list[np.ndarray] = []

        def drain() -> None:
            while True:
                try:
                    picked.append(graph.vpull().to_ndarray(format="rgb24"))
                except (av.BlockingIOError, av.EOFError):
                    return

        for frame in container.decode(stream):
            graph.vpush(frame)
            drain()
        graph.vpush(None)
        drain()
    return numbers(np.stack(picked))


@pytest.mark.parametrize("source", [Fraction(30), Fraction(30000, 1001), Fraction(24), Fraction(50)])
@pytest.mark.parametrize(("fps", "share"), [(8, 1.0), (25, 0.9)])
def test_frames_are_those_of_ffmpegs_filter(tmp_path: Path, source: Fraction, fps: int, share: float) -> None:
    total = int(source * 4)
    path = encode(
        tmp_path / "x.mp4",
        numbered(total),
        [round(n / source * 90000) for n in range(total)],
        Fraction(1, 90000),
    )
    clip = read_clip(path, duration_s=4.0, fps=fps, audio=False)
    assert clip.frames is not None
    assert len(clip.frames) == 4 * fps
    truth = fps_filter(path, fps)
    same = [a == b for a, b in zip(numbers(clip.frames), truth)]
    assert np.mean(same) >= share  # the rest are exact ties


def test_variable_frame_rate_holds_each_frame_until_the_next(tmp_path: Path) -> None:
    pts = [0, 40, 500, 520, 1400]  # ms
    path = encode(tmp_path / "x.mp4", numbered(5), pts, Fraction(1, 1000))
    clip = read_clip(path, duration_s=1.6, fps=10)
    assert clip.frames is not None
    truth = [
        max(i for i, p in enumerate(pts) if np.floor(p / 100 + 0.5) <= n) for n in range(len(clip.frames))
    ]
    assert numbers(clip.frames) == truth
    assert len(truth) >= 15


def test_missing_tail_is_absent_not_invented(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.mp4", numbered(49), 25, click(1.5, 1), RATE)
    almost = read_clip(path, duration_s=2.0, fps=25, sample_rate=16000)
    assert almost.frames is not None
    assert numbers(almost.frames) == [*range(49), 48]  # one period missing: the last frame holds
    short = read_clip(path, duration_s=3.0, fps=25, sample_rate=16000, pad=False)
    assert short.frames is not None
    assert short.wave is not None
    assert len(short.frames) == 49
    assert short.video_end_s == pytest.approx(1.96)
    assert abs(len(short.wave) / 16000 - 1.5) < 0.05
    assert not short.truncated  # the file is whole, it is merely short
    with pytest.raises(MediaError, match=r"ends at 1\.96 s"):
        read_clip(path, start_s=2.5, duration_s=1.0, fps=25)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(("video_start_s", "sound_start_s"), [(1, 0), (0, 0.5), (10, 9.5)])
def test_streams_that_start_apart_share_a_clock(
    tmp_path: Path, suffix: str, video_start_s: float, sound_start_s: float
) -> None:
    event_s = video_start_s + 1.2  # on the file's clock; frame 30
    sound = click(4, event_s - sound_start_s)
    pts = [round(video_start_s * 25) + n for n in range(50)]
    path = encode(
        tmp_path / f"x{suffix}", numbered(50), pts, Fraction(1, 25), sound=sound, sound_start_s=sound_start_s
    )
    clip = read_clip(path, duration_s=2.0, fps=25, sample_rate=16000)
    assert clip.frames is not None
    assert clip.wave is not None
    assert numbers(clip.frames) == list(range(50))
    assert len(clip.wave) == 32000
    assert abs(onset(clip.wave, 16000) - 1.2) < 0.002


# -- shape of the picture --------------------------------------------------------------------------------

ONE = 1 << 16
RIGHT_ANGLES = [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [
    (0, b, c, 0) for b in (1, -1) for c in (1, -1)
]


def corners() -> np.ndarray:
    """(32, 64, 3): red top left, green top right, blue bottom left, white bottom right."""
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:16, :32, 0] = picture[:16, 32:, 1] = picture[16:, :32, 2] = 255
    picture[16:, 32:] = 255
    return picture


@pytest.mark.parametrize("matrix", RIGHT_ANGLES)
def test_rotation_and_mirror_move_each_corner(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    a, b, c, d = matrix
    full = [a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30]
    path = encode(tmp_path / "x.mp4", np.stack([corners()] * 5), list(range(5)), Fraction(1, 25), matrix=full)
    for source in (path, mux(path, click(0.2, 0.1), RATE, tmp_path / "y.mp4")):  # a copy keeps the matrix
        clip = read_clip(source, duration_s=0.2, audio=False)
        assert clip.frames is not None
        shown = clip.frames[0].astype(int)
        assert shown.shape == ((64, 32, 3) if a == 0 else (32, 64, 3))
        assert (probe(source).height, probe(source).width) == shown.shape[:2]
        for x, y, colour in (
            (-1, -1, (255, 0, 0)),
            (1, -1, (0, 255, 0)),
            (-1, 1, (0, 0, 255)),
            (1, 1, (255,) * 3),
        ):
            row = shown.shape[0] * (2 + b * x + d * y) // 4
            column = shown.shape[1] * (2 + a * x + c * y) // 4
            assert np.abs(shown[row, column] - colour).max() < 60, (x, y)


def test_quarter_turn_of_a_phone_is_clockwise() -> None:
    turned = orient(np.array([[[1], [2]], [[3], [4]]]), (0, 1, -1, 0))
    assert turned[..., 0].tolist() == [[3, 1], [4, 2]]


def test_pixels_are_made_square_and_sizes_mean_what_they_say(tmp_path: Path) -> None:
    path = encode(
        tmp_path / "x.mp4", numbered(5, 64, 128), list(range(5)), Fraction(1, 25), sar=Fraction(2, 3)
    )
    shapes = {
        size: read_clip(path, duration_s=0.2, size=size, audio=False).frames.shape[1:3]  # type: ignore[union-attr]
        for size in (None, 32, (20, 40))
    }
    assert shapes == {None: (64, 85), 32: (32, 32), (20, 40): (20, 40)}
    assert (probe(path).width, probe(path).height) == (85, 64)


def test_centre_crop_takes_the_middle(tmp_path: Path) -> None:
    wide = np.zeros((2, 32, 96, 3), np.uint8)
    wide[:, :, 32:64] = 255
    path = write_video(tmp_path / "x.mp4", wide, 25)
    clip = read_clip(path, duration_s=0.08, size=32)
    assert clip.frames is not None
    assert clip.frames[:, :, 2:-2].min() > 200
