"""The few signal tools the families share. Frequencies in Hz, times in seconds, waves float32 at 16 kHz."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foleypref.world import NUM_FRAMES, NUM_SAMPLES, SAMPLE_RATE, SAMPLES_PER_FRAME
from foleypref.world.timelines import Timeline

Wave = NDArray[np.float32]
Array = NDArray[Any]
# Level is linear in dB with the driver: 0 is silence, just above 0 is -36 dB, 1 is full
DRIVER_RANGE_DB = 36.0
_SAMPLE_TIMES: Wave = np.arange(NUM_SAMPLES, dtype=np.float32) / np.float32(SAMPLE_RATE)
_FRAME_ENDS = (np.arange(NUM_FRAMES) + 1) * SAMPLES_PER_FRAME
_SAMPLES = np.arange(NUM_SAMPLES)
TABLE = 1024  # samples in one period of a wavetable


def silence() -> Wave:
    return np.zeros(NUM_SAMPLES, np.float32)


def seconds(duration_s: float) -> Wave:
    """Return the sample times (n,) of a piece of sound."""
    return _SAMPLE_TIMES[: max(1, round(duration_s * SAMPLE_RATE))]


def add(wave: Wave, piece: Array, at_s: float, gain: float = 1.0) -> None:
    """Add a piece at a time; what runs past the end of the clip is cut."""
    start = round(at_s * SAMPLE_RATE)
    room = min(len(piece), len(wave) - start)
    if room > 0:
        wave[start : start + room] += gain * piece[:room]


def sound_events(timeline: Timeline, piece: Callable[[float], Array], quietest: float) -> Wave:
    """Add `piece(duration_s)` at every onset; the gain rises from `quietest` to 1 with the strength."""
    out = silence()
    for at, length, power in zip(timeline.onsets_s, timeline.durations_s, timeline.strengths, strict=True):
        add(out, piece(length), at, quietest + (1 - quietest) * power)
    return out


def per_sample(curve: Array) -> Wave:
    """Spread one value per frame (100,) over the samples (64,000,), linear.

    A value is reached at the end of its frame: nothing is heard before the frame it starts on.
    """
    return np.interp(_SAMPLES, _FRAME_ENDS, curve).astype(np.float32)


def level(driver: Sequence[float]) -> Wave:
    """Turn a driver in [0, 1], one per frame, into an amplitude for every sample (see DRIVER_RANGE_DB)."""
    smooth = per_sample(np.asarray(driver))
    gain = np.exp(smooth * np.float32(DRIVER_RANGE_DB * np.log(10) / 20)) * 10 ** (-DRIVER_RANGE_DB / 20)
    return gain * np.minimum(1, smooth * 25)


def modes(freqs: Array, decays_s: Array, amps: Array, duration_s: float, rng: np.random.Generator) -> Wave:
    """Sum decaying sines: modal synthesis of a struck body. decays_s are times to fall to 1/e."""
    t = seconds(duration_s)
    out = np.zeros_like(t)
    for f, d, a in zip(freqs, decays_s, amps, strict=True):
        if f < 0.47 * SAMPLE_RATE:
            rate, phase = np.float32(2 * np.pi * f), np.float32(rng.uniform(-0.5, 0.5))
            out += np.float32(a) * np.exp(t * np.float32(-1 / d)) * np.cos(rate * t + phase)
    return out


def noise(rng: np.random.Generator, low: float, high: float, n: int = NUM_SAMPLES, tilt: float = 0.0) -> Wave:
    """Make n samples of noise between two frequencies, unit RMS; tilt in powers of frequency."""
    size = 1 << (n - 1).bit_length() if n != NUM_SAMPLES else n
    f = np.fft.rfftfreq(size, 1 / SAMPLE_RATE).astype(np.float32)
    f[0] = 1.0
    shape = 1 / np.sqrt((1 + (low / f) ** 6) * (1 + (f / high) ** 6))
    if tilt:
        shape *= f**tilt
    white = rng.standard_normal(2 * len(f), dtype=np.float32).view(np.complex64)
    out = np.fft.irfft(white * shape, size)[:n].astype(np.float32)
    return out / np.float32(np.sqrt(np.mean(out**2)) + 1e-9)


def decay(duration_s: float, fall_s: float, rise_s: float = 0.0) -> Wave:
    """Return an envelope that rises in rise_s and then falls to 1/e every fall_s."""
    t = seconds(duration_s)
    env = np.exp(-t / np.float32(fall_s))
    return env * np.minimum(1, t / np.float32(rise_s)) if rise_s else env


def hold(duration_s: float, rise_s: float = 0.008, fall_s: float = 0.04) -> Wave:
    """Return an envelope that stays at 1 with short ramps at both ends."""
    t = seconds(duration_s)
    return np.minimum(1, np.minimum(t / np.float32(rise_s), (duration_s - t) / np.float32(fall_s)))


def table(harmonics: Array) -> Wave:
    """Build one period of a wave from the amplitudes of harmonics 1, 2, ...; pulse-like, unit RMS."""
    spectrum = np.zeros(TABLE // 2 + 1, np.complex128)
    count = min(len(harmonics), TABLE // 2)
    spectrum[1 : count + 1] = harmonics[:count]
    period = np.fft.irfft(spectrum)
    return (period / (np.sqrt(np.mean(period**2)) + 1e-12)).astype(np.float32)


def play(period: Wave, freq_hz: Array) -> Wave:
    """Read a wavetable at a frequency that may change every sample (n,)."""
    phase = np.cumsum(freq_hz, dtype=np.float64) / SAMPLE_RATE
    return period[(phase * TABLE).astype(np.int64) % TABLE]


def formants(f0: float, peaks: Sequence[tuple[float, float, float]], slope: float = -1.0) -> Array:
    """Return harmonic amplitudes of a pitch f0 under resonances (frequency, width, gain) below 7.5 kHz."""
    f = f0 * np.arange(1, max(2, int(7500 / f0)))
    body = sum(g / (1 + ((f - c) / (w / 2)) ** 2) for c, w, g in peaks)
    return (f / f0) ** slope * (body + 0.01)


def clicks(rng: np.random.Generator, rate_hz: Array, piece: Wave, spread: float = 0.6) -> Wave:
    """Scatter a short piece at random times, rate_hz (64,000,) per second, with log-normal loudness."""
    places = np.flatnonzero(rng.random(NUM_SAMPLES, dtype=np.float32) * SAMPLE_RATE < rate_hz)
    train = silence()
    train[places] = np.exp(rng.normal(0, spread, len(places))) * rng.choice([-1.0, 1.0], len(places))
    size = 65_536  # a power of two, and room for a piece of up to 1536 samples without wrapping round
    assert len(piece) <= size - NUM_SAMPLES
    spectrum = np.fft.rfft(train, size) * np.fft.rfft(piece, size)
    return np.fft.irfft(spectrum, size)[:NUM_SAMPLES].astype(np.float32)
