"""Levels as BS.1770 has them, nothing clips, what is degraded is worse, and media are made once."""

from __future__ import annotations

import wave as wave_files
from pathlib import Path

import numpy as np
import pytest

from foleypref.annotate.assignments import make_assignments
from foleypref.annotate.degrade import degrade
from foleypref.annotate.levels import PEAK, TARGET_LUFS, levelled, loudness
from foleypref.annotate.media_store import NUM_PEAKS, MediaStore, prepare
from foleypref.media.clip import MediaError, probe
from tests.annotate_workspace import SAMPLE_RATE, AnnotateSettings, fake_waves, fill


def tone(frequency: float, rate: int = 48_000, seconds: float = 4.0, level: float = 1.0) -> np.ndarray:
    return (level * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000, 96_000])
def test_the_reference_tone_has_its_level(rate: int) -> None:
    """BS.1770-4, 2: a 997 Hz sine of full scale in one channel is at -3.01 LKFS, at any rate."""
    assert loudness(tone(997, rate), rate) == pytest.approx(-3.01, abs=0.05)
    assert loudness(tone(997, rate, level=0.1), rate) == pytest.approx(-23.01, abs=0.05)


def test_the_weighting_is_that_of_the_standard() -> None:
    """Against the two filters run sample by sample at 48 kHz, at which the standard gives them."""
    sound = np.random.default_rng(0).standard_normal(48_000 * 2) * 0.1
    shelf = ((1.53512485958697, -2.69169618940638, 1.19839281085285), (-1.69065929318241, 0.73248077421585))
    high_pass = ((1.0, -2.0, 1.0), (-1.99004745483398, 0.99007225036621))
    weighted = sound.tolist()
    for b, a in (shelf, high_pass):
        x1 = x2 = y1 = y2 = 0.0
        for i, x in enumerate(weighted):
            y = b[0] * x + b[1] * x1 + b[2] * x2 - a[0] * y1 - a[1] * y2
            x2, x1, y2, y1 = x1, x, y1, y
            weighted[i] = y
    expected = -0.691 + 10 * np.log10(np.mean(np.square(weighted)))
    assert loudness(sound, 48_000) == pytest.approx(expected, abs=0.05)  # steady: gates leave all in


def test_silence_around_a_sound_does_not_change_its_level() -> None:
    sound = tone(997, level=0.2)
    padded = np.concatenate([np.zeros(48_000 * 6, np.float32), sound, 0.001 * tone(997, seconds=6)])
    assert loudness(padded, 48_000) == pytest.approx(loudness(sound, 48_000), abs=0.5)
    assert loudness(np.zeros(48_000), 48_000) == -np.inf
    assert loudness(np.zeros(0), 48_000) == -np.inf
    assert np.isfinite(loudness(tone(997, seconds=0.05), 48_000))


@pytest.mark.parametrize("level", [0.003, 0.05, 1.0])
def test_every_soundtrack_comes_out_equally_loud(level: float) -> None:
    for sound in (tone(300, level=level), level * np.random.default_rng(1).uniform(-1, 1, 96_000)):
        out = levelled(sound, 48_000)
        assert loudness(out.wave, 48_000) == pytest.approx(TARGET_LUFS, abs=0.1)
        assert np.allclose(out.wave, sound * 10 ** (out.gain_db / 20), atol=1e-4)  # a gain and nothing else


def test_nothing_clips_and_silence_stays_silent() -> None:
    click = np.zeros(48_000, np.float32)
    click[100] = 0.5
    out = levelled(click, 48_000)
    assert np.abs(out.wave).max() == pytest.approx(PEAK, rel=1e-3)
    assert levelled(np.zeros(100), 48_000) == (pytest.approx(np.zeros(100)), 0.0, None)
    broken = np.full(48_000, np.nan, np.float32)
    broken[::7] = np.inf
    assert np.isfinite(levelled(broken, 48_000).wave).all()
    faint = levelled(tone(997, level=1e-3), 48_000)  # -63 LUFS
    assert faint.gain_db == pytest.approx(40.0)


def test_degraded_soundtracks_are_worse_in_the_way_they_say() -> None:
    rate = 16_000
    generator = np.random.default_rng(3)
    t = np.arange(4 * rate) / rate
    knocks = (generator.standard_normal(4 * rate) * np.exp(-20 * (t % 1.0)) * 0.2).astype(np.float32)
    noisy = degrade(knocks, rate, "noise", 1)
    gap = slice(int(0.8 * rate), rate)  # between two knocks
    assert noisy[gap].std() > 20 * knocks[gap].std()
    low = degrade(knocks, rate, "low_pass", 1)
    spectrum, before = np.abs(np.fft.rfft(low)) ** 2, np.abs(np.fft.rfft(knocks)) ** 2
    assert 0.1 < spectrum.sum() / before.sum() < 0.45
    assert spectrum[len(spectrum) // 2 :].sum() < 1e-9 * before.sum()
    late = degrade(knocks, rate, "late", 1)
    assert np.flatnonzero(late)[0] == pytest.approx(1.2 * rate, abs=2)
    for how in ("noise", "low_pass", "late"):
        worse = degrade(knocks, rate, how, 1)
        assert worse.shape == knocks.shape
        assert np.abs(worse).max() <= 1.0
        assert np.array_equal(worse, degrade(knocks, rate, how, 1))
        assert not np.array_equal(worse, knocks)
    steady = tone(400, rate, level=0.1)
    assert degrade(steady, rate, "late", 1).std() > 1.2 * steady.std()  # noise: being late cannot be heard
    for how in ("noise", "low_pass", "late"):
        assert np.abs(degrade(np.zeros(rate, np.float32), rate, how, 1)).max() > 0


def test_media_are_made_once_and_match(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "w", num_clips=3)
    calls: list[int] = []

    def waves(ids: list[str]) -> object:
        calls.append(len(ids))
        return fake_waves()(ids)

    assignments = make_assignments(workspace, AnnotateSettings())
    media = MediaStore(workspace, waves)  # type: ignore[arg-type]
    prepare(media, assignments, [*assignments.overlap, *assignments.rest])
    assert calls == [3, 3, 3]
    clip_task = assignments.clip_tasks[assignments.rest[0]]
    media.make(clip_task, [(clip_task.candidates[0], "noise")])
    assert calls[3:] == [1]
    again = MediaStore(workspace, waves)  # type: ignore[arg-type]
    prepare(again, assignments, [*assignments.overlap, *assignments.rest])
    again.make(clip_task, [(clip_task.candidates[0], "noise")])
    assert len(calls) == 4
    assert again.ready == set(assignments.clip_tasks)
    info = probe(media.video(clip_task.clip))
    assert (info.has_audio, info.has_video) == (False, True)
    levels = []
    for candidate_id in clip_task.candidates:
        sound = media.soundtrack(candidate_id)
        with wave_files.open(str(sound.path)) as file:
            assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, SAMPLE_RATE)
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32768
        assert sound.seconds == pytest.approx(len(samples) / SAMPLE_RATE)
        levels.append(loudness(samples, SAMPLE_RATE))
        outline = np.array(sound.peaks)
        assert outline.shape == (NUM_PEAKS, 2)
        assert outline.max() == pytest.approx(samples.max(), abs=2e-3)
    assert np.ptp(levels) < 0.1
    with pytest.raises(MediaError, match="is gone"):
        media.soundtrack("nobody")
    with pytest.raises(MediaError, match="is gone"):
        media.soundtrack(clip_task.candidates[0], "late")
