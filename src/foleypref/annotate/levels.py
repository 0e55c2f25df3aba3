"""Loudness as people hear it, so that no soundtrack wins by being louder: ITU-R BS.1770-4 for one channel.

Sound is weighted by frequency, cut into blocks of 400 ms, and the blocks near silence are left out, so that a
single knock in four quiet seconds is matched by the knock. The weighting is applied to the spectrum: a level
has no phase.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

TARGET_LUFS = -23.0
MAX_GAIN_DB = 40.0  # near-silence is not blown up to noise
PEAK = 10 ** (-1 / 20)  # -1 dB below full scale: a louder peak lowers the whole soundtrack instead
BLOCK_S, HOP_S = 0.4, 0.1
FLOOR_LUFS, GATE_LU = -70.0, 10.0

# BS.1770-4, tables 1 and 2: a shelf for the head, then a high-pass, as they are given for 48 kHz.
_SHELF = ((1.53512485958697, -2.69169618940638, 1.19839281085285), (1.0, -1.69065929318241, 0.73248077421585))
_HIGH_PASS = ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621))


class Levelled(NamedTuple):
    """A soundtrack brought to the level of all others."""

    wave: np.ndarray  # (N,) float32 in [-1, 1]
    gain_db: float
    lufs: float | None  # before; None is silence


def loudness(wave: np.ndarray, sample_rate: int) -> float:
    """Integrated loudness (LUFS) of (N,) mono sound in [-1, 1]; -inf for silence."""
    weighted = _weighted(np.asarray(wave, np.float64), sample_rate)
    size, hop = max(1, round(BLOCK_S * sample_rate)), max(1, round(HOP_S * sample_rate))
    energy = np.concatenate([[0.0], np.cumsum(weighted**2)])
    starts = np.arange(0, max(1, len(weighted) - size + 1), hop)
    blocks = np.maximum((energy[np.minimum(starts + size, len(weighted))] - energy[starts]) / size, 0.0)
    heard = blocks[_lufs(blocks) > FLOOR_LUFS]
    if not len(heard):
        return -np.inf
    return float(_lufs(heard[_lufs(heard) > _lufs(heard.mean()) - GATE_LU].mean()))


def levelled(wave: np.ndarray, sample_rate: int) -> Levelled:
    """(N,) sound at TARGET_LUFS, or as near as MAX_GAIN_DB and its peaks allow; nothing clips."""
    wave = np.nan_to_num(np.asarray(wave, np.float32), nan=0.0, posinf=1.0, neginf=-1.0)
    found = loudness(wave, sample_rate)
    if not np.isfinite(found):
        return Levelled(np.clip(wave, -1, 1), 0.0, None)
    gain_db = min(TARGET_LUFS - found, MAX_GAIN_DB)
    gain = min(10 ** (gain_db / 20), PEAK / float(np.abs(wave).max()))
    return Levelled((wave * gain).astype(np.float32), 20 * float(np.log10(gain)), found)


def _lufs(power: np.ndarray | float) -> np.ndarray:
    return -0.691 + 10 * np.log10(np.maximum(power, 1e-30))


def _weighted(wave: np.ndarray, sample_rate: int) -> np.ndarray:
    """(N,) -> (N,) weighted by frequency; above 24 kHz nothing is heard and the last weight holds."""
    spectrum = np.fft.rfft(wave, 2 * len(wave) or 2)
    frequency = np.minimum(np.fft.rfftfreq(2 * len(wave) or 2, 1 / sample_rate), 24_000.0)
    z = np.exp(-2j * np.pi * frequency / 48_000)
    weight = np.ones(len(z))
    for above, below in (_SHELF, _HIGH_PASS):
        weight *= np.abs(np.polyval(above[::-1], z) / np.polyval(below[::-1], z))
    return np.fft.irfft(spectrum * weight)[: len(wave)]
