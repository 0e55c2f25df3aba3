"""Generation: the picture is untouched, the sound has the video's length, windows join without a seam."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from foleypref.generate import GenerateSettings, generate
from foleypref.media.clip import MediaError, probe, read_wave, write_video

FAST = GenerateSettings(num_steps=2, guidance_scale=2.0)


def make_video(path, seconds: float):
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 255, (round(25 * seconds), 64, 64, 3), dtype=np.uint8)
    return write_video(path, frames, 25)


def packets(path) -> list[bytes]:
    with av.open(str(path)) as file:
        return [bytes(p) for p in file.demux(file.streams.video[0]) if p.size]


@pytest.mark.parametrize("seconds", [1.0, 4.0, 9.0])
def test_sound_has_the_videos_length_and_the_picture_its_bytes(tmp_path, seconds):
    video = make_video(tmp_path / "in.mp4", seconds)
    (out,) = generate(video, tmp_path / "out.mp4", FAST)
    wave, rate = read_wave(out)
    assert len(wave) / rate == pytest.approx(seconds, abs=0.1)
    assert packets(out) == packets(video)


def test_same_seed_same_sound_other_seed_other_sound(tmp_path):
    video = make_video(tmp_path / "in.mp4", 1.0)
    waves = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (out,) = generate(video, tmp_path / f"{name}.wav", FAST.model_copy(update={"seed": seed}))
        waves.append(read_wave(out)[0])
    assert np.array_equal(waves[0], waves[1])
    assert not np.allclose(waves[0], waves[2], atol=1e-3)


def test_negative_prompt_and_prompt_change_the_sound(tmp_path):
    video = make_video(tmp_path / "in.mp4", 1.0)
    waves = []
    for i, change in enumerate(({}, {"prompt": "a dog barks"}, {"negative_prompt": "rain on a roof"})):
        (out,) = generate(video, tmp_path / f"{i}.wav", FAST.model_copy(update=change))
        waves.append(read_wave(out)[0])
    assert not np.allclose(waves[0], waves[1], atol=1e-4)
    assert not np.allclose(waves[0], waves[2], atol=1e-4)


def test_without_a_video_the_prompt_makes_the_sound(tmp_path):
    (out,) = generate(None, tmp_path / "a.flac", FAST.model_copy(update={"prompt": "a dog barks"}))
    wave, rate = read_wave(out)
    assert len(wave) / rate == 4.0
    with pytest.raises(ValueError, match="neither a video nor a --prompt"):
        generate(None, tmp_path / "b.flac", FAST)
    with pytest.raises(ValueError, match=r"\.wav or \.flac"):
        generate(None, tmp_path / "b.mp4", FAST.model_copy(update={"prompt": "rain"}))


def test_a_batch_over_files_is_the_same_sound_as_one_by_one(tmp_path):
    folder = tmp_path / "videos"
    for name, seconds in (("a", 4.0), ("b", 6.0), ("c", 4.0)):
        make_video(folder / f"{name}.mp4", seconds)
    generate(folder, tmp_path / "together", FAST)
    for name in "abc":
        (single,) = generate(folder / f"{name}.mp4", tmp_path / f"{name}.mp4", FAST)
        np.testing.assert_allclose(
            read_wave(tmp_path / "together" / f"{name}.mp4")[0], read_wave(single)[0], atol=2e-3
        )


def test_a_folder_names_the_bad_file_and_does_the_rest(tmp_path, capsys):
    folder = tmp_path / "videos"
    make_video(folder / "good.mp4", 1.0)
    (folder / "bad.mp4").write_text("no video")
    written = generate(folder, tmp_path / "out", FAST)
    assert [p.name for p in written] == ["good.mp4"]
    assert "bad.mp4" in capsys.readouterr().err


def test_a_picture_whose_own_container_takes_no_sound_comes_back_in_matroska(tmp_path):
    """Matroska inside, .avi outside: H.264 cannot be written into AVI."""
    folder = tmp_path / "videos"
    make_video(folder / "a.mp4", 1.0)
    (folder / "a.mp4").rename(folder / "a.avi")
    shutil.copy(folder / "a.avi", folder / "b.flv")
    written = generate(folder, tmp_path / "out", FAST)
    assert [p.name for p in written] == ["a.avi.mkv", "b.flv.mkv"]
    assert all(probe(path).has_audio for path in written)


def test_a_file_that_ends_before_its_header_says_gets_all_its_sound(tmp_path, capsys):
    clips = Path(os.environ.get("FOLEYPREF_CLIPS", Path(__file__).parents[2] / "shared" / "clips"))
    video = clips / "odd" / "o53_corrupt_tail.mp4"
    if not video.exists():
        pytest.skip("the shared clips are not here")
    (out,) = generate(video, tmp_path / "out.wav", FAST)
    assert len(read_wave(out)[0]) == 5 * 16000
    assert "without picture from 3.5 s" in capsys.readouterr().err


def test_errors_say_what_was_found(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        generate(tmp_path / "no.mp4", tmp_path / "out.mp4", FAST)
    video = make_video(tmp_path / "in.mp4", 1.0)
    with pytest.raises(MediaError):
        generate(video, video, FAST)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no videos"):
        generate(tmp_path / "empty", tmp_path / "out", FAST)
