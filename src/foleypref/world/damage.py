"""The faults of sound on the web, each with a stated share of the clips.

Decisions (`decide`) are drawn apart from their effect (`damage`), so shares can be counted without any sound.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from foleypref.world import NUM_SAMPLES, SAMPLE_RATE
from foleypref.world.sounds.tools import Wave, noise

COLOURS = {"white": 0.0, "pink": -0.5, "brown": -1.0, "blue": 0.5}  # power of frequency of the amplitude
ROOM_DB = -70.0  # dBFS, as in the clean clips
OtherWave = Callable[[str], Wave]  # "wrong_sound" or "off_screen" -> the clean wave of another scene


@dataclass(frozen=True)
class DamageShares:
    """The probability of each fault, drawn independently; the defaults are those of the `wild` split."""

    shift: float = 0.20  # the whole track 0.12 to 0.6 s late or early
    wrong_sound: float = 0.10  # another scene's track instead
    off_screen: float = 0.15  # another scene's track mixed in, 3 to 12 dB down
    noise: float = 0.35  # coloured noise, 5 to 25 dB below the sound
    band: float = 0.15  # low-pass at 1.5 to 4 kHz, or high-pass at 400 to 1200 Hz
    clip: float = 0.10  # overdrive by 6 to 18 dB

    def __post_init__(self) -> None:
        for f in fields(self):
            if not 0 <= getattr(self, f.name) <= 1:
                raise ValueError(f"a damage share lies in [0, 1]; {f.name} is {getattr(self, f.name)}")


def decide(rng: np.random.Generator, shares: DamageShares) -> dict[str, dict[str, Any]]:
    """Draw which faults a clip has, with their parameters; empty for a clip without any.

    The number of draws is always the same, so changing one share changes no other decision.
    """
    has = dict(zip((f.name for f in fields(shares)), rng.random(6), strict=True))
    late, size_s = rng.random() < 0.5, float(rng.uniform(0.12, 0.6))
    colour, snr_db = str(rng.choice(sorted(COLOURS))), float(rng.uniform(5, 25))
    low, low_hz, high_hz = rng.random() < 0.7, float(rng.uniform(1500, 4000)), float(rng.uniform(400, 1200))
    drive_db, below_db = float(rng.uniform(6, 18)), float(rng.uniform(3, 12))
    faults: dict[str, dict[str, Any]] = {
        "shift": {"shift_s": round(size_s if late else -size_s, 4)},
        "wrong_sound": {},
        "off_screen": {"level_db": round(-below_db, 2)},
        "noise": {"colour": colour, "snr_db": round(snr_db, 2)},
        "band": {"low_pass_hz": round(low_hz)} if low else {"high_pass_hz": round(high_hz)},
        "clip": {"drive_db": round(drive_db, 2)},
    }
    return {name: faults[name] for name in faults if has[name] < getattr(shares, name)}


def damage(
    wave: Wave, other_wave: OtherWave, rng: np.random.Generator, shares: DamageShares
) -> tuple[Wave, dict[str, dict[str, Any]]]:
    """Return a damaged copy of a clean wave (64,000,), with peaks below 1, and its faults.

    A positive `shift_s` is late.
    """
    plan = decide(rng, shares)
    out = other_wave("wrong_sound") if "wrong_sound" in plan else wave
    if "shift" in plan:
        out = shift(out, plan["shift"]["shift_s"], rng)
    if "off_screen" in plan:
        stray = other_wave("off_screen")
        gain = 10 ** (plan["off_screen"]["level_db"] / 20) * _loud(out) / _loud(stray)
        out = out + stray * np.float32(gain)
    if "noise" in plan:
        hiss = noise(rng, 20, 8000, tilt=COLOURS[plan["noise"]["colour"]])
        out = out + hiss * np.float32(_loud(out) * 10 ** (-plan["noise"]["snr_db"] / 20))
    if "band" in plan:
        out = band(out, **plan["band"])
    if "clip" in plan:
        peak = np.max(np.abs(out)) + 1e-9
        drive = np.float32(10 ** (plan["clip"]["drive_db"] / 20) / peak)
        out = (np.clip(out * drive, -1, 1) * peak).astype(np.float32)
    peak = float(np.max(np.abs(out)))
    out = out * np.float32(0.95 / peak) if peak > 0.95 else out
    return out.astype(np.float32), plan


def shift(wave: Wave, shift_s: float, rng: np.random.Generator) -> Wave:
    """Move a whole track later (positive) or earlier; the gap is filled with room noise, not silence."""
    n = round(shift_s * SAMPLE_RATE)
    out = np.float32(10 ** (ROOM_DB / 20)) * noise(rng, 30, 5000, tilt=-0.3)
    if n >= 0:
        out[n:] = wave[: NUM_SAMPLES - n]
    else:
        out[:n] = wave[-n:]
    return out


def band(wave: Wave, low_pass_hz: float | None = None, high_pass_hz: float | None = None) -> Wave:
    """Cut a band with 8th order Butterworth slopes, in zero phase: onsets stay where they are."""
    f = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE)
    f[0] = 1e-3
    gain = np.ones_like(f)
    if low_pass_hz:
        gain /= np.sqrt(1 + (f / low_pass_hz) ** 16)
    if high_pass_hz:
        gain /= np.sqrt(1 + (high_pass_hz / f) ** 16)
    return np.fft.irfft(np.fft.rfft(wave) * gain.astype(np.float32), len(wave)).astype(np.float32)


def _loud(wave: Wave) -> float:
    """Return the RMS of the loudest tenth of 20 ms frames: fair to sparse and steady sounds."""
    power = np.sort(np.mean(wave.reshape(-1, 320).astype(np.float64) ** 2, axis=1))
    return float(np.sqrt(np.mean(power[-len(power) // 10 :])) + 1e-9)
