"""Continuous sounds whose level follows something visible: density, height, sway, speed, flow."""

import numpy as np

from foleypref.world.scenes import Actor
from foleypref.world.sounds.tools import (
    Wave,
    clicks,
    decay,
    formants,
    level,
    modes,
    noise,
    per_sample,
    play,
    table,
)


def rain(actor: Actor, rng: np.random.Generator) -> Wave:
    """Hiss of many far drops and the ticks of near ones."""
    drop = noise(rng, 1800 * actor.pitch, 7500, n=96) * decay(0.006, 0.0012)
    near = clicks(rng, 30 + 350 * per_sample(np.array(actor.timeline.driver)), drop)
    return (0.5 * noise(rng, 2000 * actor.pitch, 7800) + near) * level(actor.timeline.driver)


def fire(actor: Actor, rng: np.random.Generator) -> Wave:
    """Low flutter of flames and sparse, sharp crackles."""
    flutter = noise(rng, 60, 420 * actor.pitch) * (1 + 0.4 * noise(rng, 3, 14))
    snap = noise(rng, 900, 6000, n=128) * decay(0.008, 0.0016)
    crackle = clicks(rng, 6 + 24 * per_sample(np.array(actor.timeline.driver)), snap, 0.7)
    return (flutter + 1.8 * crackle) * level(actor.timeline.driver)


def wind(actor: Actor, rng: np.random.Generator) -> Wave:
    """Noise whose band climbs with the gust, and a faint whistle."""
    p, gust = actor.pitch, per_sample(np.array(actor.timeline.driver))
    low, high = noise(rng, 130 * p, 380 * p), noise(rng, 420 * p, 1000 * p)
    whistle = np.sin(2 * np.pi * np.cumsum(p * (500 + 500 * gust)) / 16000).astype(np.float32)
    body = (1.1 - gust) * low + gust * high + 0.25 * gust * whistle * (1 + 0.5 * noise(rng, 1, 8))
    return body * level(actor.timeline.driver)


def engine(actor: Actor, rng: np.random.Generator) -> Wave:
    """Firing pulses: the rate and the loudness both follow the turning speed."""
    speed = per_sample(np.array(actor.timeline.driver))
    rate = actor.pitch * (32 + 95 * speed)
    pulses = formants(60.0, [(130, 160, 1.0), (480, 300, 0.5), (1400, 900, 0.25)], slope=-0.5)
    stroke = play(table(pulses), rate) * (1 + 0.15 * noise(rng, 2, 20))
    # Every second stroke is weaker.
    cycle = 1 + 0.3 * np.sin(np.pi * np.cumsum(rate) / 16000).astype(np.float32)
    return (stroke * cycle + 0.15 * noise(rng, 200, 3000)) * level(actor.timeline.driver)


def waterfall(actor: Actor, rng: np.random.Generator) -> Wave:
    """Broad rushing water, with the gurgle of bubbles in the pool."""
    p = actor.pitch
    gurgle = modes(np.array([420.0, 610.0]) * p, np.full(2, 0.02), np.ones(2), 0.09, rng)
    bubbles = clicks(rng, np.full(64000, 30.0, np.float32), gurgle, 0.5)
    rush = noise(rng, 220 * p, 2200 * p, tilt=-0.35)
    return (rush + 0.5 * bubbles) * level(actor.timeline.driver)
