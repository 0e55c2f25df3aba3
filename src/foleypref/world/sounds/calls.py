"""Calls: animals, a bell and a horn; each event lasts as long as the beak, mouth or light is seen open."""

import numpy as np

from foleypref.world import SAMPLE_RATE
from foleypref.world.scenes import Actor
from foleypref.world.sounds.tools import (
    Wave,
    decay,
    formants,
    hold,
    modes,
    noise,
    play,
    seconds,
    sound_events,
    table,
)


def bird(actor: Actor, rng: np.random.Generator) -> Wave:
    """A whistle between 2.5 and 6 kHz: sweeps down, up, or trills; one bird keeps to one song."""
    base, song = 3600 * actor.pitch**0.6, rng.integers(3)
    trill = rng.uniform(18, 32)

    def call(length: float) -> Wave:
        x = seconds(length) / length
        sweep = [1.25 - 0.5 * x, 0.8 + 0.45 * x**2, 1 + 0.14 * np.sin(2 * np.pi * trill * length * x)][song]
        phase = 2 * np.pi * np.cumsum(base * sweep * rng.uniform(0.94, 1.06)) / SAMPLE_RATE
        return (np.sin(phase) + 0.12 * np.sin(2 * phase)).astype(np.float32) * hold(length, 0.005, 0.05)

    return sound_events(actor.timeline, call, quietest=0.35)


def dog(actor: Actor, rng: np.random.Generator) -> Wave:
    """A bark: a rough falling tone through an opening muzzle, with breath."""
    base = 330 * actor.pitch
    peaks = [(650 * actor.pitch, 350, 1.0), (1300 * actor.pitch, 500, 0.6), (2700, 900, 0.2)]
    body = table(formants(base, peaks, -0.3))

    def call(length: float) -> Wave:
        x = seconds(length) / length
        tone = play(body, base * (0.85 + 0.55 * np.sin(np.pi * np.minimum(1, x * 1.2 + 0.15))))
        rough = 1 + 0.5 * noise(rng, 40, 200, n=len(x))
        air = noise(rng, 500, 3500, n=len(x))
        return (tone * rough + 0.35 * air) * hold(length, 0.006, 0.09) * np.exp(-1.2 * x)

    return sound_events(actor.timeline, call, quietest=0.35)


def frog(actor: Actor, rng: np.random.Generator) -> Wave:
    """A croak: a fast train of short clicks around 500 Hz and 1.3 kHz."""
    rate = 42 * actor.pitch
    croak = table(formants(rate, [(520 * actor.pitch, 160, 1.0), (1300 * actor.pitch, 260, 0.7)], 0.0))

    def call(length: float) -> Wave:
        x = seconds(length) / length
        return play(croak, rate * (0.85 + 0.4 * x)) * hold(length, 0.005, 0.06) * (0.5 + 0.5 * x)

    return sound_events(actor.timeline, call, quietest=0.35)


def bell(actor: Actor, rng: np.random.Generator) -> Wave:
    """The partials of a church bell (hum, prime, tierce, quint, nominal ...) and the clapper's tick."""
    ratios = np.array([0.5, 1.0, 1.2, 1.5, 2.0, 2.66, 4.1])
    amps = np.array([0.5, 0.7, 0.8, 0.4, 1.0, 0.5, 0.3])
    ring = modes(620 * actor.pitch * ratios, 1.1 / ratios**0.8, amps, 2.6, rng)
    tick = noise(rng, 1500, 7000, n=256) * decay(0.016, 0.003)
    ring[: len(tick)] += 1.6 * tick
    return sound_events(actor.timeline, lambda _: ring, quietest=0.0)


def car_horn(actor: Actor, rng: np.random.Generator) -> Wave:
    """Two brassy tones a third apart."""
    low = 370 * actor.pitch
    voice = [table(formants(f, [(1100, 1500, 1.0), (2600, 1500, 0.6)], -0.2)) for f in (low, low * 1.26)]

    def call(length: float) -> Wave:
        n = len(seconds(length))
        tones = (play(v, np.full(n, f)) for v, f in zip(voice, (low, low * 1.26), strict=True))
        return sum(tones, np.zeros(n, np.float32)) * hold(length, 0.006, 0.05)

    return sound_events(actor.timeline, call, quietest=0.35)
