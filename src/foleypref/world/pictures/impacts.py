"""Impacts: balls that bounce, and things that are struck."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from foleypref.world.canvas import Colour
from foleypref.world.pictures.brush import Brush, Floats

DARK = (0.12, 0.1, 0.1)


Head = Callable[[ArrayLike, ArrayLike, ArrayLike], None]


def _stick(b: Brush, tip: tuple[float, float], reach: float, colour: Colour, head: Head) -> None:
    """Draw a stick that swings down to `tip` about a hand on the right; `head(u, v, angle)` is its end."""
    angle = np.asarray(b.lift()) * (0.55 + 0.35 * b.actor.variant)  # radians above contact
    hand = (tip[0] + reach, tip[1] - 0.18)
    rest = np.arctan2(tip[1] - hand[1], tip[0] - hand[0])
    u, v = hand[0] + reach * np.cos(rest + angle), hand[1] + reach * np.sin(rest + angle)
    b.line(hand[0], hand[1], u, v, 0.11, colour)
    head(u, v, rest + angle)
    b.disc(hand[0], hand[1], 0.13, (0.87, 0.67, 0.53), shine=0.2)


def _ring_out(b: Brush, fall_s: float) -> Floats:
    """Return a shiver in [-1, 1] that dies away after each contact."""
    since = b.since()
    return np.exp(-since / fall_s) * np.cos(np.pi * np.round(since * 25))


def basketball(b: Brush) -> None:
    h, r = b.hop(), 0.34
    squash = 1 - 0.22 * np.exp(-b.since() / 0.03)
    v = 1 - r * squash - h * 1.5
    b.ellipse(0, 1.0, 0.42 - 0.16 * h, 0.07, (0.05, 0.05, 0.05), 0.45)
    b.ellipse(0, v, r / squash, r * squash, b.tint(0.9, 0.45, 0.12), shine=0.3)
    b.line(-r * 0.95, v, r * 0.95, v, 0.035, DARK)
    b.line(0, v - r * 0.95 * squash, 0, v + r * 0.95 * squash, 0.035, DARK)
    for side in (-1, 1):
        b.ellipse(side * r * 0.62, v, 0.035, r * 0.72, DARK, 0.9)


def marble(b: Brush) -> None:
    b.box(0, 0.93, 0.98, 0.07, b.tint(0.55, 0.4, 0.3), corner=0.03)
    for side in (-1, 1):
        b.box(side * 0.8, 1.06, 0.06, 0.1, (0.35, 0.25, 0.2))
    h, r = b.hop(), 0.19
    v = 0.86 - r - h * 1.5
    drift = (b.actor.variant - 0.5) * 0.8 * np.linspace(-1, 1, 100)
    b.disc(drift, v, r, b.tint(0.25, 0.55, 0.95, 0.25), 0.85, shine=0.3)
    b.ellipse(drift, v, r * 0.35, r * 0.8, (0.95, 0.8, 0.2), 0.8, angle=2.0 * drift + 0.5)
    b.disc(drift - 0.07, v - 0.07, 0.05, (1, 1, 1), 0.95)


def wood_block(b: Brush) -> None:
    colour = b.tint(0.66, 0.43, 0.22)
    dip = 0.03 * _ring_out(b, 0.08)
    b.box(-0.25, 0.62 + dip, 0.68, 0.34, colour, shine=0.12, corner=0.04)
    for k in range(4):
        b.line(-0.85, 0.4 + 0.14 * k, 0.35, 0.37 + 0.15 * k, 0.025, colour * 0.65)
    b.ellipse(-0.25, 0.7, 0.12, 0.05, colour * 0.55)

    pale = b.tint(0.85, 0.7, 0.45)

    def head(u: ArrayLike, v: ArrayLike, angle: ArrayLike) -> None:
        b.box(u, np.asarray(v) - 0.02, 0.13, 0.2, pale, shine=0.2, angle=angle, corner=0.04)

    _stick(b, (-0.25, 0.13), 1.05, (0.75, 0.58, 0.35), head)


def metal_plate(b: Brush) -> None:
    sway = 0.05 * _ring_out(b, 0.5)
    b.line(-0.9, -0.95, 0.55, -0.95, 0.08, (0.3, 0.3, 0.33))
    for side in (-0.75, 0.25):
        b.line(side, -0.95, side + sway, -0.4, 0.03, (0.9, 0.9, 0.85))
    steel = b.tint(0.62, 0.67, 0.73)
    b.box(-0.25 + sway, 0.2, 0.66, 0.62, steel, shine=0.45, corner=0.03)
    b.box(-0.5 + sway, 0.0, 0.05, 0.75, (0.93, 0.95, 0.98), 0.5, angle=0.5)
    for u, v in ((-0.78, -0.3), (0.28, -0.3), (-0.78, 0.7), (0.28, 0.7)):
        b.disc(u + sway, v, 0.05, (0.25, 0.27, 0.3))

    def head(u: ArrayLike, v: ArrayLike, angle: ArrayLike) -> None:
        b.box(u, v, 0.1, 0.2, (0.2, 0.2, 0.23), shine=0.2, angle=angle)

    _stick(b, (0.1, 0.2), 0.85, (0.55, 0.3, 0.15), head)


def wine_glass(b: Brush) -> None:
    shake = 0.02 * _ring_out(b, 0.3)
    pale, wine = b.tint(0.82, 0.93, 0.97), (0.55, 0.05, 0.15)
    b.ellipse(-0.2, 0.95, 0.4, 0.07, pale, 0.85)
    b.box(-0.2, 0.55, 0.035, 0.4, pale, 0.85)
    b.ellipse(-0.2 + shake, -0.25, 0.46, 0.55, pale, 0.5, shine=0.3)
    full = 0.25 * b.actor.variant
    b.ellipse(-0.2 + shake, 0.02 - full / 2, 0.38, 0.24 + full / 2, wine, 0.75)
    b.box(-0.2 + shake, -0.72, 0.5, 0.12, pale, 0.35)
    b.ellipse(-0.38 + shake, -0.3, 0.05, 0.35, (1, 1, 1), 0.85, angle=0.2)

    def head(u: ArrayLike, v: ArrayLike, angle: ArrayLike) -> None:
        b.ellipse(u, v, 0.19, 0.1, (0.8, 0.8, 0.82), shine=0.4, angle=angle)

    _stick(b, (0.42, -0.35), 0.75, (0.75, 0.75, 0.78), head)


def drum(b: Brush) -> None:
    shell = b.tint(0.78, 0.12, 0.15)
    dip = 0.05 * _ring_out(b, 0.12)
    b.box(-0.15, 0.6, 0.72, 0.34, shell, shine=0.25)
    b.ellipse(-0.15, 0.92, 0.72, 0.14, shell * 0.75)
    for k in range(5):
        b.line(-0.8 + 0.32 * k, 0.3, -0.66 + 0.32 * k, 0.96, 0.035, (0.95, 0.85, 0.4))
    b.ellipse(-0.15, 0.27, 0.74, 0.2, (0.9, 0.78, 0.35))
    b.ellipse(-0.15, 0.26 + dip, 0.66, 0.15, (0.97, 0.95, 0.88))
    wave = np.minimum(b.since() / 0.12, 1)
    b.ellipse(-0.15, 0.26 + dip, 0.06 + 0.6 * wave, 0.02 + 0.13 * wave, (0.6, 0.55, 0.5), 0.6 * (1 - wave))

    def head(u: ArrayLike, v: ArrayLike, angle: ArrayLike) -> None:
        b.disc(u, v, 0.1, (0.98, 0.96, 0.9), shine=0.2)

    _stick(b, (-0.1, 0.16), 1.05, (0.82, 0.62, 0.38), head)


def plastic_bucket(b: Brush) -> None:
    colour = b.tint(0.15, 0.7, 0.68, 0.16)
    dip = 0.04 * _ring_out(b, 0.08)
    corners = ((-0.46, -0.42), (0.46, -0.42), (0.68, 0.45), (-0.68, 0.45))
    b.polygon(-0.2, 0.5 + dip, corners, colour, shine=0.3)
    b.box(-0.2, 0.93, 0.74, 0.06, colour * 0.75, corner=0.04)
    b.box(-0.2, 0.08 + dip, 0.48, 0.05, colour * 1.1, corner=0.03)
    b.line(-0.75, 0.75, 0.35, 0.75, 0.03, colour * 0.7)
    b.ellipse(-0.45, 0.4, 0.05, 0.25, (1, 1, 1), 0.5, angle=0.2)

    def head(u: ArrayLike, v: ArrayLike, angle: ArrayLike) -> None:
        b.disc(u, v, 0.08, (0.3, 0.2, 0.12))

    _stick(b, (-0.15, 0.02), 1.05, (0.4, 0.27, 0.16), head)
