"""Media against truth: frames that carry their number, clicks on flashes, files that broke other readers."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from foleypref.media.clip import MediaError, mux, probe, read_clip, read_wave, write_audio, write_video
from foleypref.media.decoding import FramePicker, orient
from foleypref.media.pictures import (
    OUTLINE,
    RANGE_DB,
    colour_table,
    outline_pixels,
    peaks,
    spectrogram_db,
    spectrogram_image,
)

CLIPS = Path(os.environ.get("FOLEYPREF_CLIPS", Path(__file__).resolve().parents[3] / "shared" / "clips"))
MEDIA = sorted(p for p in CLIPS.rglob("*.*") if p.is_file() and p.suffix != ".md")
RATE = 44100
needs_clips = pytest.mark.skipif(not MEDIA, reason="no shared clips; set FOLEYPREF_CLIPS")


def numbered(total: int, height: int = 32, width: int = 128) -> np.ndarray:
    """(T, H, W, 3): frame n shows n as eight black or white bars."""
    bits = (np.arange(total)[:, None] >> np.arange(8)) & 1  # (T, 8)
    bars = np.repeat(bits * 210 + 20, width // 8, axis=1).astype(np.uint8)
    return np.broadcast_to(bars[:, None, :, None], (total, height, width, 3)).copy()


def numbers(frames: np.ndarray) -> list[int]:
    """What `numbered` frames say, at any size."""
    bars = frames[:, frames.shape[1] // 2, :, 0].reshape(len(frames), 8, -1).mean(axis=2) > 128
    return [int(n) for n in (bars << np.arange(8)).sum(axis=1)]


def click(duration_s: float, at_s: float, rate: int = RATE) -> np.ndarray:
    """Silence with one millisecond of full scale starting at `at_s`."""
    wave = np.zeros(round(duration_s * rate), np.float32)
    wave[round(at_s * rate) : round(at_s * rate) + rate // 1000] = 0.9
    return wave


def onset(wave: np.ndarray, rate: int) -> float:
    """When the click starts (seconds)."""
    level = np.abs(wave)
    return float(np.argmax(level > 0.3 * level.max()) / rate)


def encode(
    path: Path, frames: np.ndarray, pts: list[int], base: Fraction, codec: str = "libx264", **extra: Any
) -> Path:
    """Write frames at chosen times (`base` seconds a tick); extra: matrix, sar, sound, sound_start_s."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=round(1 / base) if base > Fraction(1, 1000) else 30)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.codec_context.time_base = base
        if "matrix" in extra:
            stream.set_display_matrix(extra["matrix"])
        if "sar" in extra:
            stream.codec_context.sample_aspect_ratio = extra["sar"]
        sound = out.add_stream("aac", rate=RATE, layout="mono") if "sound" in extra else None
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(extra["sound"][None], format="fltp", layout="mono")
            frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
            frame.pts = round(extra.get("sound_start_s", 0) * RATE)
            out.mux(sound.encode(frame))
            out.mux(sound.encode(None))
        for pixels, at in zip(frames, pts):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = at, base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def packets(path: Path) -> list[bytes]:
    with av.open(str(path), metadata_errors="ignore") as container:
        return [bytes(packet) for packet in container.demux(container.streams.video[0]) if packet.size]


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


# -- muxing ----------------------------------------------------------------------------------------------

SOURCES = {"h264": ("s.mp4", "libx264"), "vp9": ("s.webm", "libvpx-vp9"), "mpeg4": ("s.avi", "mpeg4")}
HOLDS = [
    ("h264", ".mp4"), ("h264", ".mov"), ("h264", ".mkv"), ("vp9", ".webm"), ("vp9", ".mkv"), ("vp9", ".mp4"),
    ("vp9", ".avi"), ("mpeg4", ".avi"), ("mpeg4", ".mp4"), ("mpeg4", ".mkv"),
]  # fmt: skip
REFUSES = [("h264", ".webm"), ("h264", ".avi"), ("vp9", ".mov"), ("mpeg4", ".webm")]


def source_file(folder: Path, codec: str) -> Path:
    name, encoder = SOURCES[codec]
    return encode(folder / name, numbered(50), list(range(50)), Fraction(1, 25), codec=encoder)


@pytest.mark.parametrize(("codec", "suffix"), HOLDS)
def test_mux_copies_the_picture_and_places_the_sound(tmp_path: Path, codec: str, suffix: str) -> None:
    source = source_file(tmp_path, codec)
    out = mux(source, click(2, 1.2), RATE, tmp_path / "new" / f"out{suffix}")
    assert packets(out) == packets(source)
    clip = read_clip(out, duration_s=2.0, fps=25, sample_rate=16000)
    assert clip.frames is not None
    assert clip.wave is not None
    assert numbers(clip.frames) == list(range(50))
    assert abs(onset(clip.wave, 16000) - 1.2) < 0.002
    again = mux(out, click(2, 0.3), RATE, tmp_path / f"again{suffix}")  # the old soundtrack is dropped
    assert abs(onset(read_wave(again, 16000)[0], 16000) - 0.3) < 0.002
    with av.open(str(again)) as container:
        assert len(container.streams.audio) == 1


@pytest.mark.parametrize(("codec", "suffix"), REFUSES)
def test_mux_names_a_container_that_works(tmp_path: Path, codec: str, suffix: str) -> None:
    source = source_file(tmp_path, codec)
    with pytest.raises(MediaError, match=r"cannot hold .* use .*\.mkv"):
        mux(source, click(2, 1), RATE, tmp_path / f"out{suffix}")
    assert [p.name for p in tmp_path.iterdir()] == [source.name]


def test_mux_refuses_to_overwrite_its_input(tmp_path: Path) -> None:
    source = write_video(tmp_path / "x.mp4", numbered(5), 25)
    before = source.read_bytes()
    (tmp_path / "link.mp4").symlink_to(source)
    for out in (source, tmp_path / "link.mp4", tmp_path / "." / "x.mp4"):
        with pytest.raises(MediaError, match="overwrite"):
            mux(source, click(1, 0.5), RATE, out)
    assert source.read_bytes() == before


def test_mux_starts_the_sound_with_the_picture(tmp_path: Path) -> None:
    late = encode(tmp_path / "late.mp4", numbered(50), [250 + n for n in range(50)], Fraction(1, 25))
    out = mux(late, click(2, 1.2), RATE, tmp_path / "out.mp4")
    clip = read_clip(out, duration_s=2.0, fps=25, sample_rate=16000)
    assert clip.frames is not None
    assert clip.wave is not None
    assert numbers(clip.frames) == list(range(50))
    assert abs(onset(clip.wave, 16000) - 1.2) < 0.002
    with av.open(str(out)) as container:
        assert container.duration / av.time_base < 2.2  # no ten seconds of nothing in front
        assert not container.streams.video[0].start_time


def test_cover_art_is_no_picture(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "song.m4a"), "w", format="mp4") as out:
        sound = out.add_stream("aac", rate=RATE, layout="mono")
        art = out.add_stream("mjpeg", rate=1)
        art.width, art.height, art.pix_fmt = 32, 32, "yuvj420p"
        art.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
        frame = av.AudioFrame.from_ndarray(click(1, 0.5)[None], format="fltp", layout="mono")
        picture.pts, frame.sample_rate = 0, RATE
        for stream, content in ((art, picture), (art, None), (sound, frame), (sound, None)):
            out.mux(stream.encode(content))
    clip = read_clip(tmp_path / "song.m4a", duration_s=1.0, fps=25)
    assert clip.frames is None
    assert not clip.info.has_video
    assert clip.wave is not None
    with pytest.raises(MediaError, match="no picture"):
        mux(tmp_path / "song.m4a", click(1, 0.5), RATE, tmp_path / "out.mp4")


def test_mux_needs_a_picture(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no picture"):
        mux(write_audio(tmp_path / "x.wav", click(1, 0.5), RATE), click(1, 0.5), RATE, tmp_path / "out.mp4")


# -- damage ----------------------------------------------------------------------------------------------


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


# -- pictures of sound -----------------------------------------------------------------------------------


def test_spectrogram_shows_a_tone_at_its_pitch_and_a_click_at_its_time(tmp_path: Path) -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(32000) / 16000).astype(np.float32)
    edges = np.geomspace(40, 8000, 101)[::-1]
    row = int(spectrogram_db(tone, 16000, 50, 100)[:, 25].argmax())
    assert edges[row + 1] * 0.97 <= 1000 <= edges[row] * 1.03
    levels = spectrogram_db(click(2, 1.2, 16000), 16000, 100, 40)
    assert levels.max() == 0
    assert abs(int(levels.mean(axis=0).argmax()) - 60) <= 1
    assert (spectrogram_db(np.zeros(16000), 16000, 10, 10) == -RANGE_DB).all()
    path = spectrogram_image(click(2, 1.2, 16000), 16000, tmp_path / "a/x.webp", 200, 60, [0.5])
    picture = np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("L")).astype(int)
    assert picture.shape == (60, 200)
    assert picture[0:3, 50].mean() > picture[0:3, 40].mean() + 80  # the event line


def test_the_outline_says_how_loud_a_sound_is(tmp_path: Path) -> None:
    ramp = np.sin(2 * np.pi * 440 * np.arange(32000) / 16000) * np.repeat([1.0, 0.25, 0.01, 0.0], 8000)
    pixels = outline_pixels(ramp.astype(np.float32), 200, 40)
    rows = (pixels == OUTLINE).all(2).sum(0)  # (200,) lit rows a column
    found = [int(np.median(rows[k * 50 + 5 : k * 50 + 45])) for k in range(4)]
    np.testing.assert_allclose(found, [40, 20, 4, 2], atol=1)  # the square root of 1, 1/4, 1/100, 0
    path = spectrogram_image(ramp.astype(np.float32), 16000, tmp_path / "x.webp", 200, 60, outline=40)
    assert np.asarray(Image.open(path)).shape == (100, 200, 3)


def test_colours_get_lighter_all_the_way() -> None:
    luma = colour_table() @ np.array([0.299, 0.587, 0.114])
    assert colour_table().shape == (256, 3)
    assert (np.diff(luma) > -0.75).all()  # up to the rounding of a byte


def test_peaks_bound_every_stretch() -> None:
    wave = np.random.default_rng(0).normal(size=1003).astype(np.float32)
    outline = peaks(wave, 10)
    assert outline.shape == (10, 2)
    assert outline.dtype == np.float32
    assert outline[:, 0].min() == wave.min()
    assert outline[3, 1] == wave[300:401].max() or outline[3, 1] == wave[300:401][:-1].max()
    assert peaks(wave[:3], 8).shape == (8, 2)


def test_media_imports_without_torch() -> None:
    code = "import foleypref.media.clip, foleypref.media.pictures, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
