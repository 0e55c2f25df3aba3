"""Continuous things: how much of it is seen is the driver of how loud it is."""

from itertools import pairwise

import numpy as np

from foleypref.world.pictures.brush import FRAMES, Brush


def rain(b: Brush) -> None:
    grey = b.tint(0.42, 0.45, 0.52)
    n = 70
    home, rank = b.rng.uniform(-0.85, 0.85, n), (np.arange(n) + 0.5) / n
    phase = (FRAMES[:, None] * b.rng.uniform(0.09, 0.13, n) + b.rng.random(n)) % 1
    falling = rank < b.driver[:, None]  # the number of drops is the level
    b.ellipse(0, 0.97, 0.9, 0.06, (0.35, 0.5, 0.7), 0.6)
    b.dots(home + 0.0 * phase, -0.45 + 1.4 * phase, 0.7, (0.72, 0.87, 1.0), 0.95 * falling, stretch=3.0)
    b.dots(home + 0.06 * np.sign(home), 0.97 - 0.06 * phase, 0.9, (0.92, 0.97, 1.0), falling * (phase > 0.7))
    puffs = ((-0.5, -0.6, 0.3), (0.5, -0.6, 0.28), (0.0, -0.72, 0.36), (-0.2, -0.52, 0.3), (0.25, -0.5, 0.28))
    for u, v, r in puffs:
        b.disc(u, v, r, grey, shine=0.25)


def fire(b: Brush) -> None:
    tall = 0.12 + 1.25 * b.driver  # the height of the flames is the level
    flicker = b.rng.normal(0, 1, (100, 5))
    flicker = 0.5 * flicker + 0.5 * np.roll(flicker, 1, axis=0)
    glow = 0.25 + 0.5 * b.driver
    b.disc(0, 0.45, 0.85, (1.0, 0.5, 0.1), 0.22 * glow)
    for k, (u, scale) in enumerate(((-0.36, 0.6), (0.36, 0.62), (-0.15, 0.85), (0.17, 0.9), (0.0, 1.0))):
        h = tall * scale * (1 + 0.12 * flicker[:, k])
        lean = 0.06 * flicker[:, k]
        flame = ((lean, -h), (0.2, -0.05), (0.08, 0.12), (-0.08, 0.12), (-0.2, -0.05))
        b.polygon(u, 0.72, flame, (0.96, 0.36, 0.06))
    for k, (u, scale) in enumerate(((-0.16, 0.6), (0.16, 0.6), (0.0, 0.78))):
        h = tall * scale * (0.85 + 0.12 * flicker[:, k])
        b.polygon(u, 0.74, ((0.0, -h), (0.12, -0.03), (0.0, 0.12), (-0.12, -0.03)), (1.0, 0.82, 0.25))
    n, rank = 18, (np.arange(18) + 0.5) / 18
    phase = (FRAMES[:, None] * 0.045 + b.rng.random(n)) % 1
    home = b.rng.uniform(-0.4, 0.4, n)
    sparks = (rank < b.driver[:, None]) * (1 - phase)
    b.dots(home + 0.1 * np.sin(9 * phase + home * 20), 0.5 - 1.4 * phase, 0.8, (1.0, 0.8, 0.35), sparks)
    wood = b.tint(0.36, 0.22, 0.14)
    b.box(0, 0.86, 0.6, 0.09, wood, angle=0.18, corner=0.06)
    b.box(0, 0.86, 0.6, 0.09, wood * 0.8, angle=-0.18, corner=0.06)


def wind(b: Brush) -> None:
    bend = 0.75 * b.driver + 0.1 * b.driver * np.sin(FRAMES * 1.1)  # how far the tree leans is the level
    bark, leaf = b.tint(0.42, 0.28, 0.16), b.tint(0.2, 0.55, 0.22, 0.16)
    knots = [(0.0, 1.0), (0.06, 0.55), (0.22, 0.12), (0.5, -0.3)]
    for (s0, v0), (s1, v1) in pairwise(knots):
        b.line(-0.3 + s0 * bend, v0, -0.3 + s1 * bend, v1, 0.17 - 0.12 * s1, bark)
    crowns = ((-0.3, -0.2, 0.3), (0.26, -0.22, 0.28), (-0.1, -0.55, 0.36), (0.0, -0.2, 0.36))
    for k, (u, v, r) in enumerate(crowns):
        rustle = 0.05 * b.driver * np.sin(FRAMES * 1.7 + 2 * k)
        x, y = -0.3 + u + (0.62 - 0.4 * v) * bend + rustle, v + 0.18 * bend
        wide, tall = r * (1 + 0.25 * bend), r * (1 - 0.15 * bend)
        b.ellipse(x, y, wide, tall, leaf * (0.85 + 0.1 * k), shine=0.2)
    n, rank = 12, (np.arange(12) + 0.5) / 12
    phase = (np.cumsum(0.015 + 0.05 * b.driver)[:, None] + b.rng.random(n)) % 1
    height = b.rng.uniform(-0.8, 0.8, n)
    y = height + 0.12 * np.sin(9 * phase + rank * 30)
    b.dots(-1 + 2 * phase, y, 1.2, leaf * 1.3, rank < b.driver[:, None])


def engine(b: Brush) -> None:
    # Radians per frame: below the rate that aliases.
    turn = np.cumsum(0.08 + 1.0 * b.driver) * (b.driver > 0.01)
    casing = b.tint(0.3, 0.42, 0.36, 0.16)
    shake = 0.015 * np.minimum(1, 2 * b.driver) * np.where(FRAMES % 2, 1, -1)
    b.box(0.45, 0.42 + shake, 0.5, 0.5, casing, shine=0.2, corner=0.05)
    for k in range(4):
        b.line(0.2, 0.1 + 0.17 * k, 0.9, 0.1 + 0.17 * k, 0.04, casing * 0.6)
    b.box(0.72, -0.3 + shake, 0.09, 0.28, (0.25, 0.25, 0.27))
    b.box(0.0, 0.95, 0.98, 0.06, (0.22, 0.2, 0.2))
    n, phase = 6, (FRAMES[:, None] * 0.05 + np.arange(6) / 6) % 1
    puff = 0.55 * b.driver[:, None] * (1 - phase)
    b.dots(0.72 + 0.15 * phase * np.sin(5 * np.arange(n)), -0.6 - 0.5 * phase, 2.6, (0.55, 0.55, 0.58), puff)
    b.disc(-0.35, 0.28, 0.58, (0.15, 0.15, 0.18))
    b.ring(-0.35, 0.28, 0.52, 0.12, b.tint(0.85, 0.3, 0.12))
    for k in range(3):
        c, s = np.cos(turn + k * 2 * np.pi / 3), np.sin(turn + k * 2 * np.pi / 3)
        colour = (0.9, 0.88, 0.8) if k else (0.95, 0.8, 0.2)
        b.line(-0.35, 0.28, -0.35 + 0.47 * c, 0.28 + 0.47 * s, 0.1, colour)
    b.disc(-0.35, 0.28, 0.12, (0.7, 0.7, 0.72), shine=0.3)


def waterfall(b: Brush) -> None:
    rock = b.tint(0.45, 0.4, 0.36)
    for side in (-1, 1):
        b.box(side * 0.72, 0.1, 0.27, 0.85, rock, shine=0.15, corner=0.1)
        b.ellipse(side * 0.62, 0.75, 0.3, 0.2, rock * 0.8)
    b.box(0, -0.82, 0.9, 0.14, rock * 1.1, corner=0.08)
    b.box(0, 0.1, 0.46, 0.9, rock * 0.55)
    wide = 0.04 + 0.4 * b.driver  # the width of the stream is the level
    flowing = np.minimum(1, 8 * b.driver)
    b.box(0, 0.0, wide, 0.82, b.tint(0.45, 0.7, 0.92), flowing)
    b.box(0, 0.9, 0.95, 0.12, b.tint(0.2, 0.45, 0.7), corner=0.05)
    n, white, opacity = 40, (0.95, 0.98, 1.0), 0.8 * flowing[:, None]
    phase = (FRAMES[:, None] * b.rng.uniform(0.06, 0.1, n) + b.rng.random(n)) % 1
    lane = b.rng.uniform(-1, 1, n)
    b.dots(lane * wide[:, None], -0.8 + 1.6 * phase, 0.8, white, opacity, stretch=3.0)
    foam = b.rng.uniform(-1, 1, 16)
    jump = np.abs(np.sin(FRAMES[:, None] * 0.6 + foam * 40))
    b.dots(foam * (0.1 + wide[:, None]), 0.84 - 0.12 * jump, 2.0, white, opacity)
