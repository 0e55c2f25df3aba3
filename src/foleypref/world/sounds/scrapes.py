"""Scrapes and rolls: noise and stick-slip whose level, and often rate, follow the visible speed."""

import numpy as np

from foleypref.world.scenes import Actor
from foleypref.world.sounds.tools import Wave, clicks, formants, level, modes, noise, per_sample, play, table


def saw(actor: Actor, rng: np.random.Generator) -> Wave:
    """Teeth biting wood: a rasp whose tooth rate rises with speed, brighter on the push than on the pull."""
    p = actor.pitch
    speed = per_sample(np.array(actor.timeline.driver))
    tooth = play(table(np.array([1.0, 0.7, 0.5, 0.3])), 25 + 110 * p * speed)
    push = per_sample(np.gradient(np.array(actor.timeline.pose)) > 0)
    body = noise(rng, 700 * p, 2600 * p) * (1.2 - 0.5 * push)
    body += noise(rng, 2600 * p, 6500) * (0.3 + 0.6 * push)
    return body * (0.45 + 0.55 * np.clip(tooth + 0.4, 0, 2)) * level(actor.timeline.driver)


def broom(actor: Actor, rng: np.random.Generator) -> Wave:
    """Bristles: soft, high, airy noise with a grain."""
    speed = per_sample(np.array(actor.timeline.driver))
    hiss = noise(rng, 2600 * actor.pitch, 7600, tilt=-0.3)
    grain = clicks(rng, 500 * speed, noise(rng, 2000, 7000, n=48) * np.hanning(48).astype(np.float32))
    return (hiss + 0.5 * grain) * level(actor.timeline.driver)


def door_creak(actor: Actor, rng: np.random.Generator) -> Wave:
    """Stick-slip of a hinge: a pulse train whose rate follows the speed, through the resonances of wood."""
    speed = per_sample(np.array(actor.timeline.driver))
    wobble = per_sample(np.cumsum(rng.normal(0, 0.05, 100)) * 0.3)
    rate = actor.pitch * (55 + 130 * speed) * (1 + 0.12 * np.tanh(wobble))
    peaks = [(620 * actor.pitch, 120, 1.0), (1350 * actor.pitch, 180, 0.8), (2500 * actor.pitch, 300, 0.5)]
    squeak = play(table(formants(110 * actor.pitch, peaks, slope=-0.1)), rate)
    rough = 1 + 0.35 * noise(rng, 5, 60)
    return (squeak * rough + 0.08 * noise(rng, 800, 4000)) * level(actor.timeline.driver)


def rolling_ball(actor: Actor, rng: np.random.Generator) -> Wave:
    """A heavy ball on a track: low rumble with the knocks of an uneven surface."""
    p = actor.pitch
    speed = per_sample(np.array(actor.timeline.driver))
    knock = modes(np.array([310.0, 530.0, 870.0]) * p, np.full(3, 0.012), np.ones(3), 0.06, rng)
    rumble = noise(rng, 70 * p, 330 * p) + 0.25 * noise(rng, 500 * p, 1500 * p)
    return (rumble + 0.7 * clicks(rng, 15 + 60 * speed, knock, 0.4)) * level(actor.timeline.driver)
