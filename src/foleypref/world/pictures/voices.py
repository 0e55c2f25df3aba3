"""Two faces that speak: the mouth opens with every syllable, wide for a, spread for i, round for o and u."""

import numpy as np

from foleypref.world.pictures.brush import Brush
from foleypref.world.sounds.voices import OPENNESS, ROUNDNESS, vowels

SKIN = ((0.93, 0.76, 0.63), (0.8, 0.58, 0.42), (0.55, 0.37, 0.26))


def _mouth(b: Brush, lip: tuple[float, float, float]) -> None:
    kinds = vowels(b.actor)
    o = b.opening([0.35 + 0.65 * OPENNESS[k] for k in kinds])
    round_ = np.zeros(100)
    for c, k in zip(b.contacts, kinds, strict=True):
        round_[c:] = ROUNDNESS[k]
    wide = 0.24 - 0.11 * round_ * np.minimum(1, 3 * o)
    b.ellipse(0, 0.5, wide + 0.05, 0.05 + 0.24 * o, lip)
    b.ellipse(0, 0.5, wide, 0.005 + 0.19 * o, (0.22, 0.03, 0.05))
    b.ellipse(0, 0.5 + 0.12 * o, wide * 0.7, 0.07 * o, (0.85, 0.35, 0.38), np.minimum(1, 2 * o))
    b.box(0, 0.5 - 0.15 * o, wide * 0.6, 0.03, (0.97, 0.97, 0.93), np.clip(3 * o - 0.8, 0, 1))


def _face(b: Brush, skin: np.ndarray, wide: float) -> None:
    b.ellipse(0, 0.1, wide, 0.8, skin, shine=0.12)
    b.polygon(0, 0.1, ((0.0, -0.12), (0.1, 0.14), (-0.1, 0.14)), skin * 0.82)
    for side in (-1, 1):
        b.ellipse(side * 0.26, -0.12, 0.12, 0.08, (1, 1, 1))
        b.disc(side * 0.26, -0.12, 0.065, (0.15, 0.2, 0.3))


def low_voice(b: Brush) -> None:
    skin = b.tint(*SKIN[int(b.actor.variant * 2.99)], 0.06)
    hair = b.tint(0.2, 0.13, 0.09, 0.16)
    b.ellipse(0, 0.98, 0.85, 0.22, b.tint(0.2, 0.35, 0.3, 0.3))
    b.ellipse(0, -0.15, 0.63, 0.7, hair)
    _face(b, skin, 0.57)
    b.box(0, -0.75, 0.5, 0.2, hair, corner=0.15)
    b.ellipse(0, 0.62, 0.5, 0.36, hair)  # the beard
    b.ellipse(0, 0.28, 0.4, 0.12, skin)
    for side in (-1, 1):
        b.box(side * 0.27, -0.28, 0.15, 0.04, hair)
        b.ellipse(side * 0.15, 0.33, 0.2, 0.06, hair, angle=-side * 0.2)
    _mouth(b, (0.7, 0.4, 0.36))


def high_voice(b: Brush) -> None:
    skin = b.tint(*SKIN[int((b.actor.variant * 7.3) % 1 * 2.99)], 0.06)
    hair = b.tint(0.72, 0.38, 0.16, 0.3)
    b.ellipse(0, 0.1, 0.78, 0.92, hair)
    b.box(0, 0.6, 0.76, 0.4, hair, corner=0.1)
    b.ellipse(0, 0.98, 0.6, 0.2, b.tint(0.75, 0.25, 0.5, 0.3))
    _face(b, skin, 0.52)
    for side in (-1, 1):
        b.ellipse(side * 0.3, -0.58, 0.42, 0.24, hair, angle=side * 0.5)
        b.line(side * 0.38, -0.24, side * 0.16, -0.27, 0.05, hair * 0.6)
        b.disc(side * 0.36, 0.26, 0.1, (0.95, 0.5, 0.5), 0.4)
        b.disc(side * 0.54, 0.4, 0.06, (0.98, 0.85, 0.3))
    _mouth(b, (0.85, 0.15, 0.25))
