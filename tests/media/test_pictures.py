"""Spectrograms and outlines show pitch, time and loudness."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from foleypref.media.pictures import (
    OUTLINE,
    RANGE_DB,
    colour_table,
    outline_pixels,
    peaks,
    spectrogram_db,
    spectrogram_image,
)
from tests.media.numbered import click


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
