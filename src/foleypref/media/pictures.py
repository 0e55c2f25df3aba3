"""Pictures of sound: a log-frequency spectrogram as WebP, and the min/max outline that players draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from foleypref.media.decoding import MediaError
from foleypref.media.files import atomic_path

WINDOW_S = 0.032  # long enough to tell pitches apart, short enough to see an onset
RANGE_DB = 80.0
LOW_HZ = 40.0
# Control points (level, R, G, B) of a dark-to-light table similar to matplotlib's magma: lightness rises
# evenly, so that equal steps in dB look equal.
COLOURS = np.array(
    [
        (0.00, 0, 0, 4),
        (0.13, 28, 16, 68),
        (0.25, 79, 18, 123),
        (0.38, 129, 37, 129),
        (0.50, 181, 54, 122),
        (0.63, 229, 80, 100),
        (0.75, 251, 135, 97),
        (0.88, 254, 194, 135),
        (1.00, 252, 253, 191),
    ]
)

OUTLINE = np.array([154, 180, 214], np.uint8)  # RGB


def colour_table() -> np.ndarray:
    """Return (256, 3) uint8: the RGB colour of each level in 1/255 of the range."""
    levels = np.linspace(0, 1, 256)
    columns = [np.interp(levels, COLOURS[:, 0], COLOURS[:, channel]) for channel in (1, 2, 3)]
    return np.stack(columns, axis=1).round().astype(np.uint8)


def spectrogram_db(wave: np.ndarray, sample_rate: int, width: int, height: int) -> np.ndarray:
    """Return (height, width) dB relative to the loudest cell, in [-RANGE_DB, 0]; row 0 is the highest pitch.

    Column c covers the time around (c + 1/2) / width of the sound; rows are evenly spaced in log frequency
    from 40 Hz to half the rate. Silence is -RANGE_DB throughout.
    """
    size = 1 << max(6, math.ceil(math.log2(WINDOW_S * sample_rate)))
    padded = np.pad(np.nan_to_num(np.asarray(wave, np.float32)), size)
    # Each column is the maximum over a few frames inside it, so that a click cannot fall between two columns.
    per_column = max(1, min(8, math.ceil(len(wave) / width / (size // 4))))
    centres = (np.arange(width * per_column) + 0.5) / (width * per_column) * len(wave)
    starts = centres.astype(np.int64) + size - size // 2
    power = np.empty((width, height), np.float32)
    edges = np.geomspace(min(LOW_HZ, sample_rate / 8), sample_rate / 2, height + 1) * size / sample_rate
    low = np.minimum(edges[:-1], size / 2 - 1)
    window = np.hanning(size).astype(np.float32)
    for begin in range(0, width, 64):  # in blocks, because a long sound would need gigabytes at once
        block = starts[begin * per_column : (begin + 64) * per_column]
        spectrum = np.abs(np.fft.rfft(padded[block[:, None] + np.arange(size)] * window)) ** 2
        spectrum = spectrum.reshape(-1, per_column, size // 2 + 1).max(axis=1)
        power[begin : begin + 64] = _rows(spectrum, low, edges[1:])
    loudest = power.max(initial=0.0)
    if loudest <= 1e-10:
        return np.full((height, width), -RANGE_DB, np.float32)
    decibels = 10 * np.log10(np.maximum(power / loudest, 1e-12))
    return np.maximum(decibels, -RANGE_DB).T[::-1]


def spectrogram_image(
    wave: np.ndarray,
    sample_rate: int,
    path: str | Path,
    width: int = 640,
    height: int = 160,
    event_times_s: Sequence[float] = (),
    outline: int = 0,
) -> Path:
    """Write the picture of `spectrogram_pixels` as WebP. Raises MediaError for an empty sound or size."""
    path = Path(path)
    if wave.ndim != 1 or not len(wave) or sample_rate <= 0 or width < 1 or height < 1:
        raise MediaError(
            f"{path}: a spectrogram needs (N,) sound and a size, got {wave.shape} {width}x{height}"
        )
    pixels = spectrogram_pixels(
        wave, sample_rate, width, height, event_times_s=event_times_s, outline=outline
    )
    with atomic_path(path) as temporary:  # method 4 takes twice as long for 1 %
        Image.fromarray(pixels).save(temporary, format="WEBP", quality=85, method=2)
    return path


def spectrogram_pixels(
    wave: np.ndarray,
    sample_rate: int,
    width: int,
    height: int,
    event_times_s: Sequence[float] = (),
    outline: int = 0,
) -> np.ndarray:
    """Draw sound (N,) as (height + outline, width, 3) uint8, with events as dotted vertical lines.

    `outline` rows below show the sound against full scale, as audio editors do: the spectrogram is relative
    to its loudest cell and does not show how loud that is.
    """
    levels = (spectrogram_db(wave, sample_rate, width, height) / RANGE_DB + 1) * 255
    pixels = colour_table()[levels.round().astype(np.uint8)]  # (height, width, 3)
    if outline:
        pixels = np.concatenate([pixels, outline_pixels(wave, width, outline)])
    for time in event_times_s:
        column = int(time * sample_rate / len(wave) * width)
        if 0 <= column < width:
            pixels[np.arange(len(pixels)) % 6 < 3, column] = 255
    return pixels


def outline_pixels(wave: np.ndarray, width: int, height: int) -> np.ndarray:
    """Draw sound (N,) as (height, width, 3) uint8: from lowest to highest sample per column, light on dark.

    Heights are square roots of amplitudes, so that −40 dB is still a tenth of full scale.
    """
    bounds = np.nan_to_num(peaks(np.asarray(wave, np.float32), width))
    low, high = (np.sign(bounds) * np.sqrt(np.abs(bounds).clip(max=1))).T
    rows = 1 - 2 * (np.arange(height)[:, None] + 0.5) / height  # centres of the rows, 1 to −1
    inside = (rows <= high + 1 / height) & (rows >= low - 1 / height)
    return np.where(inside[..., None], OUTLINE, COLOURS[0, 1:].astype(np.uint8))


def peaks(wave: np.ndarray, num: int) -> np.ndarray:
    """Return the lowest and highest sample in `num` equal stretches of sound (N,), as (num, 2) float32."""
    if num < 1:
        raise MediaError(f"peaks needs num >= 1, got {num}")
    if not len(wave):
        return np.zeros((num, 2), np.float32)
    starts = (np.arange(num) * len(wave) // num).astype(np.int64)
    low, high = np.minimum.reduceat(wave, starts), np.maximum.reduceat(wave, starts)
    return np.stack([low, high], axis=1).astype(np.float32)


def _rows(spectrum: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return (T, rows) of power (T, F): a band's loudest bin, interpolated if the band is below one bin."""
    top = spectrum.shape[1] - 1
    begin = np.minimum(np.ceil(low).astype(int), top - 1)
    bounds = np.stack([begin, np.clip(np.ceil(high).astype(int), begin + 1, top)], axis=1).ravel()
    loudest = np.maximum.reduceat(spectrum, bounds, axis=1)[:, ::2]
    first = np.floor(low).astype(int)
    fraction = (low - first)[None]
    between = spectrum[:, first] * (1 - fraction) + spectrum[:, first + 1] * fraction
    return np.where((high - low)[None] >= 1, loudest, between)
