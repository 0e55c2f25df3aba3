"""The embedded world against its own truth: statement, picture and sound must agree."""

import hashlib
import json
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import av
import numpy as np
import pytest

from foleypref.world import CLASSES, FAMILIES, FPS, NUM_SAMPLES, SAMPLE_RATE, SPLITS
from foleypref.world.damage import DamageShares, damage, decide, shift
from foleypref.world.drawing import render_frames
from foleypref.world.encode import write_flac, write_mp4
from foleypref.world.make import make, make_clip, other_scene
from foleypref.world.scenes import Scene, generator, sample_scene
from foleypref.world.settings import MakeSettings
from foleypref.world.sound import actor_wave, frame_levels_db, noise_floor_db, synthesise

SHARP = [c for c in CLASSES if FAMILIES[c] in ("impact", "burst") or c in ("bell", "car_horn", "dog")]
DRIVEN = [c for c in CLASSES if FAMILIES[c] in ("texture", "scrape")]


def alone(label: str, index: int = 0) -> Scene:
    """Return a scene of one object, dry and without a silent distractor."""
    return replace(sample_scene("judge", 5, index, labels=(label,)), distractor=None, echo=0.0)


def onset_error_s(wave: np.ndarray, t: float) -> float:
    """Return the distance of the steepest rise of energy within 60 ms of t, in steps of 1 ms."""
    power = np.mean(wave[: len(wave) // 16 * 16].reshape(-1, 16).astype(float) ** 2, axis=1) + 1e-8
    k = round(t * 1000)
    rise = [np.mean(power[j : j + 4]) / np.mean(power[max(0, j - 4) : j]) for j in range(k - 60, k + 60)]
    return abs(int(np.argmax(rise)) - 60) / 1000


def decode_audio(path: Path) -> np.ndarray:
    """Decode as a player would: the first frame starts at its time stamp."""
    with av.open(str(path)) as box:
        frames = list(box.decode(audio=0))
    lead = round(float(frames[0].pts * frames[0].time_base) * SAMPLE_RATE)
    wave = np.concatenate([f.to_ndarray().astype(np.float32).ravel() for f in frames])
    return np.concatenate([np.zeros(lead, np.float32), wave]) if lead >= 0 else wave[-lead:]


@pytest.mark.parametrize("label", CLASSES)
def test_every_class_is_seen_and_heard(label: str) -> None:
    scene = alone(label)
    frames, sound = render_frames(scene), synthesise(scene)
    assert frames.shape == (100, 96, 96, 3)
    assert frames.dtype == np.uint8
    assert np.abs(np.diff(frames.astype(int), axis=0)).max() > 40, "nothing moves"
    assert sound.wave.shape == (NUM_SAMPLES,)
    assert sound.wave.dtype == np.float32
    assert np.isfinite(sound.wave).all()
    assert 0.1 < np.abs(sound.wave).max() <= 0.95
    assert max(sound.level_db) > -45
    assert scene.caption


@pytest.mark.parametrize("label", SHARP)
def test_events_are_heard_when_stated(label: str) -> None:
    for index in range(4):
        scene = alone(label, index)
        sound = synthesise(scene)
        assert sound.event_times_s, "an event class without events"
        assert list(sound.event_times_s) == sorted(sound.event_times_s)
        for t in sound.event_times_s:
            assert onset_error_s(sound.wave, t) <= 0.010, f"{label} {index} at {t} s"


@pytest.mark.parametrize("label", DRIVEN)
def test_level_follows_what_is_seen(label: str) -> None:
    for index in range(3):
        scene = alone(label, index)
        level = np.maximum(frame_levels_db(actor_wave(scene.actors[0])), -60)
        assert np.corrcoef(scene.actors[0].timeline.driver, level)[0, 1] > 0.8, f"{label} {index}"


@pytest.mark.parametrize("label", ["balloon_pop", "clap", "firework"])
def test_bursts_are_seen_on_the_frame_of_the_sound(label: str) -> None:
    scene = alone(label, 1)
    change = np.abs(np.diff(render_frames(scene).astype(int), axis=0)).mean(axis=(1, 2, 3))
    for t in synthesise(scene).event_times_s:
        k = round(t * FPS)
        window = change[k - 4 : k + 4]  # change[k - 1] is from frame k - 1 to frame k
        assert np.argmax(window) == 3, f"{label}: the picture changes most at another frame than {k}"


def test_ball_is_lowest_at_contact() -> None:
    scene = alone("basketball")
    frames = render_frames(scene).astype(int)
    orange = (frames[..., 0] - frames[..., 2] > 130).astype(float)
    height = (orange * np.arange(96)[None, :, None]).sum((1, 2)) / np.maximum(orange.sum((1, 2)), 1)
    for t in synthesise(scene).event_times_s:
        k = round(t * FPS)
        assert height[k] == height[k - 2 : k + 3].max()


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    prints = []
    for name in ("a", "b"):
        scene = sample_scene("wild", 3, 17)
        frames, sound = render_frames(scene), synthesise(scene)
        write_mp4(tmp_path / f"{name}.mp4", frames, FPS, sound.wave, SAMPLE_RATE)
        parts = (json.dumps(asdict(scene)).encode(), frames.tobytes(), sound.wave.tobytes())
        prints.append(
            [hashlib.sha256(p).hexdigest() for p in (*parts, (tmp_path / f"{name}.mp4").read_bytes())]
        )
    assert prints[0] == prints[1]
    assert sample_scene("wild", 3, 18) != scene


def test_splits_and_seeds_share_no_scene() -> None:
    scenes = [sample_scene(s, seed, i) for s in SPLITS for seed in (0, 1) for i in range(40)]
    seeds = [a.seed for scene in scenes for a in scene.actors]
    assert len(set(seeds)) == len(seeds)
    with pytest.raises(ValueError, match="no split named 'train'"):
        sample_scene("train", 0, 0)


def test_scenes_have_the_stated_shares() -> None:
    scenes = [sample_scene("align", 0, i) for i in range(1500)]
    assert np.mean([len(s.actors) == 2 for s in scenes]) == pytest.approx(0.3, abs=0.04)
    assert np.mean([s.distractor is not None for s in scenes]) == pytest.approx(0.3, abs=0.04)
    count = Counter(label for s in scenes for label in s.labels)
    assert set(count) == set(CLASSES)
    assert min(count.values()) > 0.5 * max(count.values())
    for s in scenes:
        for a in s.actors:
            assert list(a.timeline.onsets_s) == sorted(set(a.timeline.onsets_s))
            assert len(a.timeline.onsets_s) == len(a.timeline.durations_s) == len(a.timeline.strengths)
            assert all(0 < t < 4 and t * FPS == pytest.approx(round(t * FPS)) for t in a.timeline.onsets_s)


def test_distractors_are_seen_and_not_heard() -> None:
    scene = next(s for s in (sample_scene("test", 0, i) for i in range(50)) if s.distractor)
    without = replace(scene, distractor=None)
    np.testing.assert_array_equal(synthesise(scene).wave, synthesise(without).wave)
    assert np.abs(render_frames(scene).astype(int) - render_frames(without)).max() > 20


def test_damage_shares_are_as_stated() -> None:
    shares = DamageShares()
    plans = [decide(generator("wild", 0, i, "damage"), shares) for i in range(3000)]
    for name in ("shift", "wrong_sound", "off_screen", "noise", "band", "clip"):
        seen = np.mean([name in plan for plan in plans])
        assert seen == pytest.approx(getattr(shares, name), abs=0.03), name
    both = np.mean(["noise" in p and "shift" in p for p in plans])
    assert both == pytest.approx(shares.noise * shares.shift, abs=0.02), "not independent"
    shifts = np.array([p["shift"]["shift_s"] for p in plans if "shift" in p])
    assert np.abs(shifts).min() >= 0.12 and np.abs(shifts).max() <= 0.6  # noqa: PT018
    assert np.mean(shifts > 0) == pytest.approx(0.5, abs=0.1)
    with pytest.raises(ValueError, match=r"noise is 1\.5"):
        DamageShares(noise=1.5)


def test_damage_does_what_it_says() -> None:
    wave = synthesise(alone("wood_block")).wave
    rng, none = np.random.default_rng(0), DamageShares(0, 0, 0, 0, 0, 0)
    other = synthesise(alone("bell")).wave
    same, plan = damage(wave, lambda _: other, rng, none)
    np.testing.assert_array_equal(same, wave)
    assert plan == {}
    wrong, _ = damage(wave, lambda _: other, rng, replace(none, wrong_sound=1.0))
    np.testing.assert_array_equal(wrong, other)
    np.testing.assert_array_equal(shift(wave, 0.25, rng)[4000:], wave[:-4000])
    np.testing.assert_array_equal(shift(wave, -0.25, rng)[:-4000], wave[4000:])
    noisy, plan = damage(wave, lambda _: other, rng, replace(none, noise=1.0))
    assert noise_floor_db(noisy) > noise_floor_db(wave) + 10
    dull, plan = damage(other, lambda _: wave, np.random.default_rng(1), replace(none, band=1.0))
    if "low_pass_hz" in plan["band"]:
        power = np.abs(np.fft.rfft(dull)) ** 2
        assert power[int(2 * plan["band"]["low_pass_hz"] * 4) :].sum() < 1e-3 * power.sum()
    for index in range(20):  # everything at once stays in range
        loud, plan = damage(
            wave, lambda _: other, np.random.default_rng(index), DamageShares(1, 0, 1, 1, 1, 1)
        )
        assert len(plan) == 5
        assert np.isfinite(loud).all()
        assert np.abs(loud).max() <= 0.951


def test_stray_sounds_are_of_other_classes() -> None:
    for index in range(20):
        scene = sample_scene("wild", 0, index)
        assert not set(other_scene(scene, "wrong_sound").labels) & set(scene.labels)


def test_file_is_aligned_with_the_clean_sound(tmp_path: Path) -> None:
    for index, label in enumerate(("clap", "marble", "high_voice")):
        scene = alone(label, index)
        wave, frames = synthesise(scene).wave, render_frames(scene)
        write_mp4(tmp_path / "x.mp4", frames, FPS, wave, SAMPLE_RATE)
        write_flac(tmp_path / "x.flac", wave, SAMPLE_RATE)
        heard = decode_audio(tmp_path / "x.mp4")[:NUM_SAMPLES]
        spectrum = np.fft.rfft(heard, 2 * NUM_SAMPLES) * np.conj(np.fft.rfft(wave, 2 * NUM_SAMPLES))
        lag = int(np.argmax(np.fft.irfft(spectrum)))
        lag = lag - 2 * NUM_SAMPLES if lag > NUM_SAMPLES else lag
        assert abs(lag) <= 0.002 * SAMPLE_RATE
        exact = decode_audio(tmp_path / "x.flac") / 32768
        np.testing.assert_allclose(exact, wave, atol=1e-4)
        with av.open(str(tmp_path / "x.mp4")) as box:
            seen = np.stack([f.to_ndarray(format="rgb24") for f in box.decode(video=0)])
        assert seen.shape == frames.shape
        assert np.abs(seen.astype(int) - frames).mean() < 6


def clips(split: str, num_clips: int, out: Path, num_workers: int = 1) -> MakeSettings:
    """Return the settings that make the first clips of a split."""
    return MakeSettings(split=split, num_clips=num_clips, out=out, num_workers=num_workers)


def files_of(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_make_resumes_to_the_same_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    monkeypatch.setattr("foleypref.world.make.CHUNK", 1)  # more tasks than are handed out at once
    assert make(clips("wild", 12, whole, num_workers=2)) == (12, 0, 0)
    assert "made 12, skipped 0, failed 0 clips in" in capsys.readouterr().out
    make(clips("wild", 3, broken))
    (broken / "clean" / "wild-0-000001.flac").unlink()
    (broken / "metadata.jsonl").rename(
        broken / "metadata.old"
    )  # as after kill -9: rows of single clips, no table
    (broken / ".rows").mkdir(exist_ok=True)
    for line in (broken / "metadata.old").read_text().splitlines():
        (broken / ".rows" / (json.loads(line)["file_name"][:-4] + ".json")).write_text(line)
    (broken / "metadata.old").unlink()
    assert make(clips("wild", 12, broken), quiet=True) == (10, 2, 0)
    assert files_of(whole) == files_of(broken)
    assert make(clips("wild", 12, whole), quiet=True) == (0, 12, 0)
    rows = [json.loads(line) for line in (whole / "metadata.jsonl").read_text().splitlines()]
    assert [r["world_index"] for r in rows] == list(range(12))
    for row in rows:
        assert (whole / row["file_name"]).exists()
        assert (whole / row["clean_audio"]).exists()
        assert len(row["level_db"]) == 100
        assert row["label"] == row["labels"][0]
        assert row["audible"]
    with pytest.raises(ValueError, match="choose another folder"):
        make(clips("wild", 12, whole), shares=DamageShares(noise=0.0))


def test_clean_splits_are_clean(tmp_path: Path) -> None:
    make(clips("test", 2, tmp_path), quiet=True)
    row = json.loads((tmp_path / "metadata.jsonl").read_text().splitlines()[1])
    assert row["damage"] == {}
    clean = decode_audio(tmp_path / row["clean_audio"]) / 32768
    heard = decode_audio(tmp_path / row["file_name"])[:NUM_SAMPLES]
    assert np.corrcoef(clean, heard)[0, 1] > 0.99
    np.testing.assert_allclose(frame_levels_db(clean), row["level_db"], atol=0.3)


def test_one_bad_clip_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sometimes(split: str, seed: int, index: int, *rest: object) -> dict[str, object]:
        if index == 1:
            raise RuntimeError("two\nlines")
        return make_clip(split, seed, index, tmp_path)

    monkeypatch.setattr("foleypref.world.make.make_clip", sometimes)
    assert make(clips("judge", 3, tmp_path), quiet=True) == (2, 0, 1)
    assert len((tmp_path / "metadata.jsonl").read_text().splitlines()) == 2


def test_workers_do_not_import_torch() -> None:
    code = "import sys, foleypref.world.make; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
