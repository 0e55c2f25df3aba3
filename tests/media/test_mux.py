"""A new soundtrack beside an untouched picture."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from foleypref.media.clip import MediaError, mux, read_clip, read_wave, write_audio, write_video
from tests.media.numbered import RATE, click, encode, numbered, numbers, onset, packets

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
