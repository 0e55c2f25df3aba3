"""Two voices that speak syllables: a glottal pulse train under the formants of a gliding vowel."""

import numpy as np

from foleypref.world.scenes import Actor
from foleypref.world.sounds.tools import (
    Wave,
    add,
    decay,
    formants,
    hold,
    noise,
    play,
    seconds,
    silence,
    table,
)

VOWELS: tuple[tuple[float, float, float], ...] = (  # first three formants of an adult male, Hz
    (730, 1090, 2440),  # a: wide open
    (530, 1840, 2480),  # e
    (270, 2290, 3010),  # i: spread
    (570, 840, 2410),  # o: rounded
    (300, 870, 2240),  # u: small and round
)
OPENNESS = (1.0, 0.7, 0.4, 0.75, 0.35)  # how far the mouth opens, by vowel
ROUNDNESS = (0.4, 0.15, 0.0, 0.85, 1.0)


def vowels(actor: Actor) -> list[int]:
    """Return which vowel each syllable has; picture and sound both ask here."""
    num_syllables = len(actor.timeline.onsets_s)
    return np.random.default_rng(actor.seed + 1).integers(5, size=num_syllables).tolist()


def speak(actor: Actor, rng: np.random.Generator) -> Wave:
    """Sound every syllable; pitch falls over the phrase, and strength opens the sound."""
    high = actor.label == "high_voice"
    f0, tract = (205.0, 1.17) if high else (112.0, 1.0)
    f0, tract = f0 * actor.pitch**0.5, tract * actor.pitch**0.2
    out, line, kinds = silence(), actor.timeline, vowels(actor)
    tables = {}
    for k in set(kinds) | {(k + 1) % 5 for k in kinds}:
        f1, f2, f3 = (tract * f for f in VOWELS[k])
        peaks = [(f1, 90, 1.0), (f2, 120, 0.6), (f3, 180, 0.3), (3600 * tract, 300, 0.12)]
        tables[k] = table(formants(f0, peaks, -0.7))
    for at, length, power, kind in zip(line.onsets_s, line.durations_s, line.strengths, kinds, strict=True):
        x = seconds(length) / length
        contour = f0 * (1.12 - 0.06 * at) * (1 + 0.12 * np.sin(np.pi * x) * rng.uniform(-0.5, 1.0))
        glide = np.clip(x - 0.55, 0, 0.45) * rng.integers(2)
        tone = (1 - glide) * play(tables[kind], contour) + glide * play(tables[(kind + 1) % 5], contour)
        tone *= hold(length, 0.01, 0.05)
        if rng.random() < 0.5:  # a plosive or a fricative starts the syllable
            hiss = noise(rng, 2500, 7000, n=len(x)) * decay(length, float(rng.choice([0.008, 0.03])))
            tone = tone + 0.6 * hiss
        add(out, tone.astype(np.float32), at, 0.4 + 0.6 * power)
    return out


low_voice = high_voice = speak
