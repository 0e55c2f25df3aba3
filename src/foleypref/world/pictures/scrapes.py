"""Scrapes and rolls: a part that travels along the pose of its timeline."""

from itertools import pairwise

import numpy as np

from foleypref.world.pictures.brush import Brush

STEEL = (0.75, 0.78, 0.82)


def saw(b: Brush) -> None:
    wood = b.tint(0.78, 0.57, 0.32)
    b.box(0, 0.62, 0.95, 0.26, wood, shine=0.12, corner=0.03)
    b.ellipse(0.95, 0.62, 0.08, 0.26, wood * 1.15)
    b.line(0, 0.34, 0, 0.72, 0.05, (0.2, 0.13, 0.08))
    for side in (-0.7, 0.7):
        b.box(side, 0.95, 0.07, 0.13, (0.4, 0.3, 0.25))
    u = 0.42 * b.pose
    b.polygon(u, 0.22, ((-0.62, -0.12), (0.62, -0.3), (0.62, 0.16), (-0.62, 0.16)), STEEL, shine=0.15)
    for k in range(9):
        b.disc(u - 0.56 + 0.14 * k, 0.38, 0.045, (0.35, 0.36, 0.4))
    b.box(u + 0.74, 0.08, 0.16, 0.24, b.tint(0.7, 0.2, 0.1), angle=0.15, corner=0.08, shine=0.2)
    b.disc(u + 0.74, 0.06, 0.07, (0.9, 0.7, 0.56))
    ways = np.arange(14)
    phase = (np.arange(100)[:, None] / 12 + b.rng.random(14)) % 1
    dust = np.where(phase < 1, b.driver[:, None], 0) * (1 - phase)
    x = 0.05 * np.sin(7 * ways) + 0.2 * phase * np.sin(3 * ways)
    b.dots(x, 0.75 + 0.25 * phase, 0.7, (0.95, 0.82, 0.55), dust)


def broom(b: Brush) -> None:
    u = 0.55 * b.pose
    b.ellipse(0, 0.97, 0.98, 0.06, (0.3, 0.28, 0.25), 0.5)
    lean = 0.25 * np.gradient(b.pose) / 0.1
    straw = b.tint(0.9, 0.75, 0.3)
    b.line(u + 0.12 + 0.25 * lean, -0.98, u, 0.35, 0.08, (0.62, 0.4, 0.2))
    drag = -0.16 * lean
    b.polygon(u, 0.65, ((-0.14, -0.3), (0.14, -0.3), (0.34 + drag, 0.3), (-0.34 + drag, 0.3)), straw)
    for k in range(-2, 3):
        b.line(u + 0.05 * k, 0.4, u + 0.13 * k + drag, 0.94, 0.03, straw * 0.7)
    b.box(u, 0.38, 0.16, 0.06, b.tint(0.75, 0.15, 0.15), corner=0.02)
    n = 16
    home, phase = b.rng.uniform(-0.9, 0.9, n), (np.arange(100)[:, None] / 9 + b.rng.random(n)) % 1
    near = np.exp(-(((home - u[:, None]) / 0.4) ** 2)) * np.minimum(1, 2 * b.driver[:, None])
    b.dots(home + 0.0 * phase, 0.95 - 0.35 * phase, 0.9, (0.75, 0.7, 0.62), near * (1 - phase))


def door_creak(b: Brush) -> None:
    frame, wood = b.tint(0.35, 0.22, 0.14), b.tint(0.55, 0.33, 0.2)
    b.box(0, 0, 0.68, 1.0, frame, corner=0.02)
    b.box(0, 0.04, 0.56, 0.93, (0.06, 0.06, 0.09))
    b.ellipse(0.1, 0.75, 0.35, 0.15, (0.9, 0.75, 0.35), 0.35)
    width = 0.5 + 0.45 * np.asarray(b.pose)  # 0: wide open, 1: almost shut
    right, skew = -0.56 + 1.12 * width, 0.16 * (1 - width)
    corners = ((0.0, -0.93), (right + 0.56, -0.93 + skew), (right + 0.56, 0.93 - skew / 3), (0.0, 0.93))
    b.polygon(-0.56, 0.04, corners, wood)
    middle = -0.56 + (right + 0.56) / 2
    for v in (-0.42, 0.42):
        b.box(middle, v, 0.36 * width, 0.3, wood * 0.75)
        b.box(middle, v, 0.3 * width, 0.25, wood * 1.12)
    b.disc(right - 0.1 * width, 0.06, 0.06, (0.95, 0.8, 0.3), shine=0.3)
    for v in (-0.6, 0.68):
        b.box(-0.58, v, 0.05, 0.09, (0.8, 0.7, 0.3))


def rolling_ball(b: Brush) -> None:
    track = (0.32, 0.34, 0.4)
    u, r = 0.68 * b.pose, 0.27
    bend = 0.35 * u**2  # the track is a shallow bowl
    for a, c in pairwise(np.linspace(-0.98, 0.98, 9)):
        b.line(a, 0.8 - 0.35 * a**2, c, 0.8 - 0.35 * c**2, 0.12, track)
    for side in (-0.8, 0.0, 0.8):
        b.box(side, 0.93 - 0.12 * side**2, 0.05, 0.14 + 0.08 * side**2, (0.25, 0.2, 0.2))
    v = 0.8 - bend - 0.06 - r
    b.disc(u, v, r, b.tint(0.58, 0.6, 0.66), shine=0.55)
    for k in range(2):
        angle = u / r + np.pi * k
        b.disc(u + 0.15 * np.cos(angle), v + 0.15 * np.sin(angle), 0.06, (0.2, 0.2, 0.25))
    b.disc(u - 0.1, v - 0.12, 0.06, (1, 1, 1), 0.9)
