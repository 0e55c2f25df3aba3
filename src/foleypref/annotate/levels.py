"""Brings soundtracks to one loudness, so that none wins by being louder: ITU-R BS.1770-4 for one channel.

Sound is weighted by frequency and cut into blocks of 400 ms; blocks near silence are left out, so that a
single knock in four quiet seconds is measured by the knock. The weighting is applied to the spectrum, because
a level does not depend on phase.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

TARGET_LUFS = -23.0
MAX_GAIN_DB = 40.0  # so that near-silence is not amplified to noise
PEAK = 10 ** (-1 / 20)  # 1 dB below full scale; a soundtrack with louder peaks gets less gain
BLOCK_S, HOP_S = 0.4, 0.1
FLOOR_LUFS, GATE_LU = -70.0, 10.0

# BS.1770-4, tables 1 and 2, for 48 kHz: a shelf that models the head, then a high-pass.
_SHELF = ((1.53512485958697, -2.69169618940638, 1.19839281085285), (1.0, -1.69065929318241, 0.73248077421585))
_HIGH_PASS = ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621))


class Levelled(NamedTuple):
    """A soundtrack at the level of all others."""

    wave: np.ndarray  # (N,) float32 in [-1, 1]
    gain_db: float
    lufs: float | None  # before the gain; None for silence


def loudness(wave: np.ndarray, sample_rate: int) -> float:
    """Return the integrated loudness (LUFS) of (N,) mono sound in [-1, 1]; -inf for silence."""
    weighted = _weighted(np.asarray(wave, np.float64), sample_rate)
    size, hop = max(1, round(BLOCK_S * sample_rate)), max(1, round(HOP_S * sample_rate))
    energy = np.concatenate([[0.0], np.cumsum(weighted**2)])
    starts = np.arange(0, max(1, len(weighted) - size + 1), hop)
    blocks = np.maximum((energy[np.minimum(starts + size, len(weighted))] - energy[starts]) / size, 0.0)
    audible = blocks[_lufs(blocks) > FLOOR_LUFS]
    if not len(audible):
        return -np.inf
    return float(_lufs(audible[_lufs(audible) > _lufs(audible.mean()) - GATE_LU].mean()))


def levelled(wave: np.ndarray, sample_rate: int) -> Levelled:
    """Return (N,) sound at TARGET_LUFS, or as near as MAX_GAIN_DB and its peaks allow; nothing clips."""
    wave = np.nan_to_num(np.asarray(wave, np.float32), nan=0.0, posinf=1.0, neginf=-1.0)
    lufs = loudness(wave, sample_rate)
    if not np.isfinite(lufs):
        return Levelled(np.clip(wave, -1, 1), 0.0, None)
    gain_db = min(TARGET_LUFS - lufs, MAX_GAIN_DB)
    gain = min(10 ** (gain_db / 20), PEAK / float(np.abs(wave).max()))
    return Levelled((wave * gain).astype(np.float32), 20 * float(np.log10(gain)), lufs)


def _lufs(power: np.ndarray | float) -> np.ndarray:
    return -0.691 + 10 * np.log10(np.maximum(power, 1e-30))


def _weighted(wave: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return (N,) sound weighted by frequency; the weight at 24 kHz holds for all frequencies above it."""
    spectrum = np.fft.rfft(wave, 2 * len(wave) or 2)
    frequency = np.minimum(np.fft.rfftfreq(2 * len(wave) or 2, 1 / sample_rate), 24_000.0)
    z = np.exp(-2j * np.pi * frequency / 48_000)
    weight = np.ones(len(z))
    for above, below in (_SHELF, _HIGH_PASS):
        weight *= np.abs(np.polyval(above[::-1], z) / np.polyval(below[::-1], z))
    return np.fft.irfft(spectrum * weight)[: len(wave)]
