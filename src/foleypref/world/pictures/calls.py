"""Calls: beaks, muzzles and lights that open for exactly as long as the sound lasts; a bell that swings."""

import numpy as np

from foleypref.world.pictures.brush import Brush

EYE = (0.05, 0.05, 0.07)


def bird(b: Brush) -> None:
    o = b.opening()
    body = b.tint(0.97, 0.8, 0.2, 0.08)
    b.line(-0.95, 0.72, 0.95, 0.8, 0.12, (0.45, 0.3, 0.18))
    b.polygon(-0.5, 0.3, ((-0.5, 0.05), (0.1, -0.25), (0.2, 0.15)), body * 0.75)
    b.ellipse(-0.1, 0.25, 0.5, 0.4, body, shine=0.2, angle=-0.3)
    b.ellipse(-0.22, 0.25, 0.32, 0.18, body * 0.7, angle=-0.5 - 0.25 * o)
    head_v = -0.3 - 0.1 * o
    b.disc(0.22, head_v, 0.33, body, shine=0.25)
    b.disc(0.3, head_v - 0.08, 0.07, EYE)
    beak = (0.95, 0.45, 0.1)
    b.ellipse(0.55, head_v + 0.04, 0.1, 0.02 + 0.13 * o, (0.6, 0.08, 0.1), np.minimum(1, 3 * o))
    b.polygon(0.5, head_v - 0.01 - 0.05 * o, ((0.0, -0.12), (0.38, 0.03 - 0.16 * o), (0.0, 0.05)), beak)
    b.polygon(0.5, head_v + 0.06 + 0.06 * o, ((0.0, -0.05), (0.34, 0.0 + 0.18 * o), (0.0, 0.1)), beak)
    for u in (-0.1, 0.08):
        b.line(u, 0.58, u, 0.76, 0.04, (0.7, 0.4, 0.15))


def dog(b: Brush) -> None:
    o = b.opening()
    fur = b.tint(0.55, 0.36, 0.2, 0.2)
    b.ellipse(-0.35, 0.72, 0.55, 0.36, fur * 0.9)
    lift = -0.08 * o
    b.ellipse(-0.1, lift - 0.1, 0.48, 0.46, fur, shine=0.2)
    b.ellipse(-0.48, lift - 0.1, 0.16, 0.42, fur * 0.6, angle=0.3)
    b.box(0.42, lift + 0.16 + 0.28 * o, 0.38, 0.09, fur * 0.8, angle=0.35 * o, corner=0.08)  # the lower jaw
    b.ellipse(0.4, lift + 0.12 + 0.13 * o, 0.3, 0.02 + 0.17 * o, (0.65, 0.1, 0.15), np.minimum(1, 3 * o))
    tooth = ((-0.06, 0.0), (0.06, 0.0), (0.0, 0.14))
    b.polygon(0.62, lift + 0.04 - 0.05 * o, tooth, (1, 1, 1), np.minimum(1, 3 * o))
    b.box(0.42, lift - 0.04 - 0.07 * o, 0.42, 0.14, fur * 1.1, angle=-0.15 * o, corner=0.12)
    b.disc(0.8, lift - 0.12 - 0.12 * o, 0.1, EYE)
    b.disc(0.08, lift - 0.28, 0.08, (1, 1, 1))
    b.disc(0.1, lift - 0.28, 0.055, EYE)
    b.box(-0.25, 0.42, 0.34, 0.06, (0.8, 0.1, 0.1), angle=0.25, corner=0.03)


def frog(b: Brush) -> None:
    o = b.opening()
    skin = b.tint(0.3, 0.65, 0.2, 0.16)
    b.ellipse(0, 0.92, 0.98, 0.12, (0.15, 0.42, 0.3))
    for side in (-1, 1):
        b.ellipse(side * 0.62, 0.6, 0.26, 0.3, skin * 0.75)
        b.ellipse(side * 0.55, 0.9, 0.28, 0.08, skin * 0.85)
    b.ellipse(0, 0.45, 0.62, 0.46, skin, shine=0.2)
    b.ellipse(0, 0.0, 0.58, 0.36, skin * 1.08, shine=0.2)
    b.ellipse(0, 0.42 + 0.08 * o, 0.3 + 0.3 * o, 0.16 + 0.3 * o, (0.93, 0.9, 0.6), shine=0.2)  # the throat
    for side in (-1, 1):
        b.disc(side * 0.36, -0.32, 0.21, skin * 1.1, shine=0.2)
        b.disc(side * 0.36, -0.33, 0.13, (0.95, 0.85, 0.3))
        b.ellipse(side * 0.36, -0.33, 0.1, 0.04, EYE)
    b.line(-0.4, 0.08, 0.4, 0.08, 0.05, (0.12, 0.25, 0.1))


def bell(b: Brush) -> None:
    angle = 0.45 * b.pose
    c, s = np.cos(angle), np.sin(angle)
    brass = b.tint(0.85, 0.66, 0.2)
    b.box(0, -0.9, 0.8, 0.08, (0.4, 0.28, 0.2), corner=0.02)
    for side in (-0.78, 0.78):
        b.box(side, 0.05, 0.06, 1.0, (0.4, 0.28, 0.2))

    def at(u: float, v: float) -> tuple[np.ndarray, np.ndarray]:  # turned about the hanger
        return u * c - v * s, -0.82 + u * s + v * c

    clapper = at(0, 1.42)
    late = 0.28 * b.pose  # the clapper runs ahead and meets the rim at the end of the swing
    b.disc(clapper[0] - late, clapper[1], 0.12, (0.25, 0.2, 0.15))
    body = ((-0.2, 0.15), (0.2, 0.15), (0.34, 0.8), (0.58, 1.25), (-0.58, 1.25), (-0.34, 0.8))
    b.polygon(0, 0, [at(u, v) for u, v in body], brass, shine=0.25)
    b.box(*at(0, 1.25), 0.62, 0.07, brass * 0.75, angle=angle, corner=0.05)
    b.ellipse(*at(-0.15, 0.7), 0.05, 0.35, (1, 0.95, 0.7), 0.7, angle=angle + 0.2)
    flash = np.clip(1 - b.since() / 0.16, 0, 1)
    for side in (-1, 1):
        b.ring(*at(side * 0.8, 1.2), 0.1, 0.05, (1, 1, 0.8), flash)


def car_horn(b: Brush) -> None:
    o = np.minimum(1, 2.0 * b.opening())
    paint = b.tint(0.16, 0.3, 0.75, 0.25)
    b.ellipse(0, 0.92, 0.95, 0.08, (0.05, 0.05, 0.05), 0.5)
    for side in (-1, 1):
        b.box(side * 0.62, 0.75, 0.16, 0.2, (0.08, 0.08, 0.09), corner=0.06)
    b.polygon(0, -0.2, ((-0.45, -0.35), (0.45, -0.35), (0.68, 0.3), (-0.68, 0.3)), paint * 0.85)
    window = ((-0.38, -0.26), (0.38, -0.26), (0.56, 0.24), (-0.56, 0.24))
    b.polygon(0, -0.2, window, (0.65, 0.82, 0.9), shine=0.2)
    b.box(0, 0.38, 0.85, 0.32, paint, shine=0.25, corner=0.12)
    b.box(0, 0.46, 0.38, 0.12, (0.12, 0.12, 0.14), corner=0.04)
    b.box(0, 0.68, 0.85, 0.06, (0.75, 0.76, 0.78), corner=0.03)
    for side in (-1, 1):
        b.disc(side * 0.6, 0.36, 0.15, (0.75, 0.75, 0.7))
        b.disc(side * 0.6, 0.36, 0.15, (1.0, 1.0, 0.7), o)
        b.disc(side * 0.6, 0.36, 0.38, (1.0, 0.95, 0.5), 0.45 * o)
    for k in range(2):
        b.ring(0, -0.75, 0.12 + 0.14 * k, 0.06, (1.0, 0.95, 0.6), o)
