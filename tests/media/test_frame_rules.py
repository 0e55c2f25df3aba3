"""The two frame streams of MMAudio: the frame in each slot, its resizing, and refusals."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.nn.functional as F
from safetensors.torch import load_file

from foleypref.media import clip as media
from foleypref.media import frame_rules
from foleypref.media.clip import MediaError, write_audio, write_video
from foleypref.media.decoding import render
from foleypref.media.frame_rules import clip_frame, read_conditioning_frames, shortened, sync_frame
from foleypref.networks import synchformer_visual
from foleypref.networks.synchformer_visual import (
    num_segments,
)
from tests.media.numbered import encode

GOLDEN = Path(__file__).parents[1] / "golden"
FRAME_INDEX = json.loads((GOLDEN / "mmaudio_preprocess_frame_index.json").read_text())


def numbered(total: int) -> np.ndarray:
    """(T, 64, 64, 3): frame n shows n as eight black or white fields, two rows of four."""
    bits = ((np.arange(total)[:, None] >> np.arange(8)) & 1).reshape(total, 2, 4)
    fields = (bits * 210 + 20).repeat(32, axis=1).repeat(16, axis=2).astype(np.uint8)
    return np.broadcast_to(fields[..., None], (total, 64, 64, 3)).copy()


def numbers(frames: np.ndarray) -> list[int]:
    """What `numbered` frames say, at any size."""
    side = frames.shape[1]
    bits = frames[:, side // 4 :: side // 2, side // 8 :: side // 4, 0].reshape(len(frames), 8) > 128
    return [int(n) for n in (bits << np.arange(8)).sum(axis=1)]


@pytest.mark.parametrize("name", [name for name in FRAME_INDEX if "fps" in FRAME_INDEX[name]])
def test_golden_frames_come_out_of_real_files(tmp_path: Path, name: str) -> None:
    case = FRAME_INDEX[name]
    path = write_video(tmp_path / "x.mp4", numbered(case["n_frames"]), float(Fraction(case["fps"])))
    found = read_conditioning_frames(path, 0.0, case["end_sec"], "demo")
    lengths = {key: case["load_video"][key][0] for key in ("clip", "sync")}
    assert found.duration_s == case["load_video"]["duration"]
    assert numbers(found.clip_frames) == case["clip_idx"][: lengths["clip"]]
    assert numbers(found.sync_frames) == case["sync_idx"][: lengths["sync"]]
    assert found.clip_frames.shape == (lengths["clip"], 384, 384, 3)
    assert found.sync_frames.shape == (lengths["sync"], 224, 224, 3)
    assert found.clip_frames.dtype == found.sync_frames.dtype == np.uint8


def test_trap_10_slots_of_a_25_fps_file_skip_frames_6_and_18(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.mp4", numbered(50), 25)
    demo = numbers(read_conditioning_frames(path, 0.0, 2.0, "demo").sync_frames)
    assert demo[5:9] == [5, 7, 7, 8]
    assert demo[17:20] == [17, 19, 20]
    assert demo[18:] == list(range(19, 50))  # and so the stream ends one frame early, at 1.96 s
    assert len(demo) == 49
    training = read_conditioning_frames(path, 0.0, 2.0, "training")
    assert numbers(training.sync_frames) == list(range(50))
    assert training.duration_s == 2.0


def test_training_frames_are_those_of_the_fps_filter(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.mp4", numbered(240), 30)
    filtered = json.loads((GOLDEN / "scorers_fps_frames.json").read_text())["cases"]["30fps_240frames"]
    training = read_conditioning_frames(path, 0.0, 8.0, "training")
    assert numbers(training.sync_frames) == filtered["at_25"]
    demo = read_conditioning_frames(path, 0.0, 8.0, "demo")
    pairs = list(zip(numbers(training.clip_frames), numbers(demo.clip_frames)))
    assert len(pairs) == 64
    assert not any(a == b for a, b in pairs)  # at 8 fps the two rules share no frame at all


def test_a_short_file_shortens_the_duration(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.mp4", numbered(72), 24)
    found = read_conditioning_frames(path, 0.0, 8.0)
    expected = FRAME_INDEX["24_short_for_8s"]
    assert found.duration_s == expected["duration"]
    assert [len(found.clip_frames), len(found.sync_frames)] == [expected["clip"][0], expected["sync"][0]]
    training = read_conditioning_frames(path, 0.0, 8.0, "training")
    assert (training.duration_s, len(training.clip_frames), len(training.sync_frames)) == (3.0, 24, 75)


def test_both_rules_of_shortening() -> None:
    assert shortened(2.5, 21, 62, "demo") == 2.48
    assert shortened(2.5, 21, 62, "training") == 2.5  # int(25 * 2.5) frames are all that is wanted
    assert shortened(8.0, 45, 140, "training") == shortened(8.0, 45, 140, "demo") == 5.6
    assert shortened(8.0, 40, 200, "demo") == 5.0


@pytest.mark.parametrize("rule", ["demo", "training"])
def test_streams_stay_in_step_with_the_sync_length_for_every_count_of_frames(rule: Any) -> None:
    for count in range(16, 1500):  # int(25 * (29 / 25)) is 28: the network's own formula must lose it too
        seconds = shortened(60.0, 10_000, count, rule)
        tokens = int((math.floor((seconds * 25 - 16) / 8) + 1) * 8)
        assert 8 * num_segments(int(25 * seconds)) == tokens


@pytest.mark.parametrize("start_s", [1.0, 4.0, 6.12])
@pytest.mark.parametrize("rule", ["demo", "training"])
def test_a_window_starts_its_own_clock(tmp_path: Path, start_s: float, rule: Any) -> None:
    path = write_video(tmp_path / "x.mp4", numbered(200), 25)
    whole = read_conditioning_frames(path, 0.0, 1.0, rule)
    window = read_conditioning_frames(path, start_s, 1.0, rule)
    first = round(25 * start_s)
    assert window.duration_s == 1.0
    assert numbers(window.clip_frames) == [first + n for n in numbers(whole.clip_frames)]
    assert numbers(window.sync_frames) == [first + n for n in numbers(whole.sync_frames)]


def test_variable_frame_rate_goes_by_time(tmp_path: Path) -> None:
    steps = np.random.default_rng(3).integers(15, 140, 60)
    times = [0, *np.cumsum(steps).tolist()]  # milliseconds
    path = encode(tmp_path / "x.mkv", numbered(len(times)), times, Fraction(1, 1000))
    found = read_conditioning_frames(path, 0.0, 3.0, "demo")
    assert found.duration_s == 3.0
    for fps, frames in ((8, found.clip_frames), (25, found.sync_frames)):
        target, expected = 0.0, []
        for _ in range(len(frames)):
            expected.append(next(n for n, time in enumerate(times) if time / 1000 >= target))
            target += 1 / fps
        assert numbers(frames) == expected
    filtered = read_conditioning_frames(path, 0.0, 3.0, "training")
    slots = [math.floor(Fraction(time, 1000) * 25 + Fraction(1, 2)) for time in times]
    expected = [max(n for n, slot in enumerate(slots) if slot <= at) for at in range(75)]
    assert numbers(filtered.sync_frames) == expected


def test_one_pass_converts_and_resizes_each_chosen_frame_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "x.mp4", numbered(36), 12)
    counts = {"opened": 0, "shown_pixels": 0, "_resize": 0}

    def count(module: Any, name: str) -> None:
        function = getattr(module, name)

        def counted(*args: Any) -> Any:
            counts[name] += 1
            return function(*args)

        monkeypatch.setattr(module, name, counted)

    count(media, "opened")
    count(frame_rules, "shown_pixels")
    count(frame_rules, "_resize")
    read_conditioning_frames(path, 0.0, 3.0)
    case = FRAME_INDEX["12"]
    clip, sync = set(case["clip_idx"]), set(case["sync_idx"])
    assert len(case["sync_idx"]) > len(sync)  # frames are held
    assert counts == {"opened": 1, "shown_pixels": len(clip | sync), "_resize": len(clip) + len(sync)}


def test_frames_are_the_resized_picture(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 4, 6, 3)).astype(np.uint8)
    path = write_video(tmp_path / "x.mp4", noise.repeat(24, axis=1).repeat(24, axis=2), 25)
    found = read_conditioning_frames(path, 0.0, 0.64, "demo")
    with media.opened(path) as container:
        frame = next(iter(container.decode(video=0)))
        pixels = frame.to_ndarray(format="rgb24")  # as upstream converts
        assert np.abs(pixels.astype(int) - render(frame, None, None)).mean() < 5
    assert pixels.shape == (96, 144, 3)
    assert np.array_equal(found.clip_frames[0], clip_frame(pixels))
    assert np.array_equal(found.sync_frames[0], sync_frame(pixels))


def test_turned_pictures_are_read_upright(tmp_path: Path) -> None:
    fields = np.zeros((20, 64, 64, 3), np.uint8)
    fields[:, :32, 32:] = 255  # white top right corner; a quarter turn puts it elsewhere
    one = 1 << 16
    matrix = (0, one, 0, -one, 0, 0, 0, 0, 1 << 30)  # shown x = -y, shown y = x
    path = encode(tmp_path / "x.mp4", fields, list(range(20)), Fraction(1, 25), matrix=matrix)
    found = read_conditioning_frames(path, 0.0, 0.64, "training")
    for frames in (found.clip_frames, found.sync_frames):
        half = frames.shape[1] // 2
        means = [frames[0, y : y + half, x : x + half].mean() for y in (0, half) for x in (0, half)]
        assert int(np.argmax(means)) == 3  # bottom right
        assert max(means) > 240
        assert sorted(means)[2] < 15


def test_trap_11_resizing_is_done_on_uint8() -> None:
    golden = load_file(GOLDEN / "mmaudio_preprocess_resize.safetensors")
    source = golden["tall.in"]
    as_float = F.interpolate(source.float(), (384, 384), mode="bicubic", antialias=True, align_corners=False)
    rounded = as_float.round().clamp(0, 255)[:, :, ::3, ::3]
    assert (rounded - golden["tall.clip_u8"].float()).abs().max() >= 2
    ours = clip_frame(source[0].permute(1, 2, 0).contiguous().numpy())[::3, ::3]
    assert np.array_equal(ours, golden["tall.clip_u8"][0].permute(1, 2, 0).numpy())


@pytest.mark.parametrize(("extra", "offset"), [(0, 0), (1, 0), (2, 1), (3, 2), (5, 2), (7, 4)])
def test_the_crop_is_rounded_half_to_even(extra: int, offset: int) -> None:
    pixels = np.random.default_rng(extra).integers(0, 256, (224, 224 + extra, 3)).astype(np.uint8)
    assert np.array_equal(sync_frame(pixels), pixels[:, offset : offset + 224])
    turned = np.ascontiguousarray(pixels.transpose(1, 0, 2))
    assert np.array_equal(sync_frame(turned), turned[offset : offset + 224])


# -- what cannot be read ---------------------------------------------------------------------------------


def refused(path: Path, *args: Any) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        read_conditioning_frames(path, *args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def ten_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("short") / "x.mp4", numbered(10), 25)


@pytest.mark.parametrize("rule", ["demo", "training"])
def test_less_than_one_segment_is_refused(ten_frames: Path, rule: str) -> None:
    with pytest.raises(MediaError, match=r"only 0\.\d+ s of picture from 0 s on, MMAudio needs 0\.64 s"):
        read_conditioning_frames(ten_frames, 0.0, 8.0, rule)  # type: ignore[arg-type]
    assert "its picture ends at 0.40 s" in refused(ten_frames, 2.0, 8.0, rule)


def test_files_without_a_picture_are_refused(tmp_path: Path) -> None:
    sound = write_audio(tmp_path / "x.wav", np.zeros(16000, np.float32), 16000)
    (tmp_path / "text.mp4").write_text("no video")
    assert "no video stream" in refused(sound)
    assert "does not open" in refused(tmp_path / "text.mp4")
    assert "no such file" in refused(tmp_path / "absent.mp4")


def test_settings_that_mean_nothing_are_refused(ten_frames: Path) -> None:
    assert "at least 0.64" in refused(ten_frames, 0.0, 0.6)
    assert "start_s" in refused(ten_frames, -1.0, 8.0)
    assert "'demo' or 'training', got 'ffmpeg'" in refused(ten_frames, 0.0, 8.0, "ffmpeg")


def test_reader_and_network_agree_on_what_a_segment_is() -> None:
    assert synchformer_visual.SEGMENT_FRAMES == frame_rules.SEGMENT_FRAMES
    assert synchformer_visual.IMAGE == frame_rules.SYNC_SIDE
