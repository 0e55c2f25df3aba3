"""Degrades soundtracks on purpose: a rater who calls one good is not listening.

Every degradation can be heard in any sound: noise as loud as the sound itself, only the lowest octaves left,
or the whole sound late. Lateness cannot be heard in a steady sound, which gets noise instead.
"""

from __future__ import annotations

import numpy as np

NOISE_SNR_DB = 0.0
LOW_PASS_ENERGY = 0.15  # share of the energy below the cut
LATE_SHARE, LATE_MIN_S, LATE_MAX_S = 0.3, 0.4, 1.5
STEADY = 2.0  # a sound is steady if its loudest 50 ms (RMS) are below this multiple of the mean


def degrade(wave: np.ndarray, sample_rate: int, how: str, seed: int) -> np.ndarray:
    """Return a (N,) sound degraded; the same seed gives the same samples. Silence becomes noise."""
    wave = np.asarray(wave, np.float32)
    if how == "low_pass" and wave.any():
        return _low_pass(wave)
    if how == "late" and not _is_steady(wave, sample_rate):
        late = min(max(LATE_SHARE * len(wave) / sample_rate, LATE_MIN_S), LATE_MAX_S)
        num = min(round(late * sample_rate), len(wave))
        return np.concatenate([np.zeros(num, np.float32), wave[: len(wave) - num]])
    level = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))) if len(wave) else 0.0
    noise = np.random.default_rng(seed).standard_normal(len(wave)) * (level or 0.1)
    return _in_range(wave + noise * 10 ** (-NOISE_SNR_DB / 20))


def _low_pass(wave: np.ndarray) -> np.ndarray:
    """Return the sound below the frequency that has LOW_PASS_ENERGY of the energy under it."""
    spectrum = np.fft.rfft(wave.astype(np.float64))
    energy = np.cumsum(np.abs(spectrum) ** 2)
    cut = max(2, int(np.searchsorted(energy, LOW_PASS_ENERGY * energy[-1])))
    slope = np.clip(1 - (np.arange(len(spectrum)) - cut) / cut, 0, 1)  # falls to 0 within an octave
    return _in_range(np.fft.irfft(spectrum * slope, len(wave)))


def _is_steady(wave: np.ndarray, sample_rate: int) -> bool:
    size = max(1, sample_rate // 20)
    frames = wave[: len(wave) // size * size].reshape(-1, size)
    levels = np.sqrt(np.square(frames, dtype=np.float64).mean(1))
    return not len(levels) or float(levels.max()) < STEADY * float(levels.mean() + 1e-12)


def _in_range(wave: np.ndarray) -> np.ndarray:
    return (wave / max(1.0, float(np.abs(wave).max(initial=0.0)))).astype(np.float32)
