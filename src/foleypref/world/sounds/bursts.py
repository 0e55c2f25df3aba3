"""Bursts: one short explosion of noise per event, each with its own body and tail."""

from collections.abc import Callable

import numpy as np

from foleypref.world.scenes import Actor
from foleypref.world.sounds.tools import Wave, add, decay, modes, noise, seconds, sound_events

Burst = Callable[[Actor, np.random.Generator], Wave]


def _at_every_event(burst: Burst) -> Burst:
    """Turn the sound of one burst into that of all events of an actor."""
    return lambda actor, rng: sound_events(actor.timeline, lambda _: burst(actor, rng), quietest=0.3)


@_at_every_event
def balloon_pop(actor: Actor, rng: np.random.Generator) -> Wave:
    """A crack of a few milliseconds with a hollow thump."""
    n = len(seconds(0.25))
    crack = noise(rng, 250, 7000, n=n) * decay(0.25, 0.013)
    room = noise(rng, 300, 2500, n=n) * decay(0.25, 0.05)
    freqs = np.array([190.0, 320.0]) * actor.pitch
    thump = modes(freqs, np.array([0.03, 0.02]), np.array([2.0, 1.0]), 0.25, rng)
    return crack + 0.15 * room + 0.5 * thump


@_at_every_event
def clap(actor: Actor, rng: np.random.Generator) -> Wave:
    """Palms: a band of noise around 1 to 2 kHz, the cup of the hands giving its pitch."""
    centre, n = 1250 * actor.pitch, len(seconds(0.16))
    slap = noise(rng, centre * 0.75, centre * 1.6, n=n) * decay(0.16, 0.018)
    return slap + 0.25 * noise(rng, 2500, 6000, n=n) * decay(0.16, 0.006)


@_at_every_event
def splash(actor: Actor, rng: np.random.Generator) -> Wave:
    """A plop, a wash of noise that darkens, and rising bubbles."""
    length = 0.9
    n = len(seconds(length))
    out = noise(rng, 900, 6500, n=n) * decay(length, 0.11)
    out += noise(rng, 250, 1600, n=n) * decay(length, 0.24)
    t = seconds(0.12)
    plop = np.sin(2 * np.pi * actor.pitch * (240 * t + 900 * t**2)) * decay(0.12, 0.035)
    out[: len(plop)] += 1.6 * plop
    for _ in range(int(rng.integers(4, 10))):
        t, f = seconds(0.06), rng.uniform(450, 1300) * actor.pitch
        bubble = np.sin(2 * np.pi * (f * t + 2.5 * f * t**2)) * decay(0.06, 0.018, 0.004)
        add(out, bubble, rng.uniform(0.08, 0.75), rng.uniform(0.2, 0.7))
    return out


@_at_every_event
def firework(actor: Actor, rng: np.random.Generator) -> Wave:
    """A deep boom, its echo, and crackling sparks."""
    length = 1.5
    n = len(seconds(length))
    out = noise(rng, 40, 240 * actor.pitch, n=n) * decay(length, 0.22)
    out += 0.5 * noise(rng, 300, 4000, n=n) * decay(length, 0.04)
    snap = noise(rng, 2500, 7500, n=96) * decay(0.006, 0.0015)
    for _ in range(int(rng.integers(25, 60))):
        add(out, snap, 0.15 + rng.beta(1.5, 2.5) * 1.1, rng.uniform(0.1, 0.6))
    return out
