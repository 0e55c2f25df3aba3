"""Bursts: something builds up in silence, then on one frame it goes off."""

import numpy as np

from foleypref.world import FPS
from foleypref.world.pictures.brush import FRAMES, Brush


def balloon_pop(b: Brush) -> None:
    grown, there, start = np.zeros(100), np.zeros(100), 0
    for c in b.contacts:  # from the last pop (plus a pause) it is blown up until it bursts
        k = np.arange(start, c)
        grown[start:c] = 0.35 + 0.65 * np.sqrt((k - start + 1) / max(1, c - start))
        there[start:c] = 1
        start = min(c + 10, 100)
    r = 0.58 * grown
    red = b.tint(0.9, 0.12, 0.14, 0.14)
    b.box(0, 0.9, 0.2, 0.09, (0.3, 0.3, 0.35), corner=0.04)
    b.line(0, 0.85, 0, np.where(there > 0, 0.72, 0.85), 0.05, (0.85, 0.85, 0.8))
    v = 0.72 - 1.12 * r
    b.ellipse(0, v, r, r * 1.12, red, there, shine=0.3)
    b.ellipse(-0.38 * r, v - 0.42 * r, 0.12 * r, 0.24 * r, (1, 1, 1), 0.75 * there, angle=0.5)
    age, n = b.since()[:, None], 22
    way, rate = b.rng.uniform(0, 2 * np.pi, n), b.rng.uniform(1.0, 3.6, n)
    young = np.minimum(age, 3.0)
    u, w = rate * np.cos(way) * young, rate * np.sin(way) * young + 6.0 * young**2 / 2  # fragments that fall
    b.dots(0.25 * np.sign(u) + u, 0.1 + w, 1.6, red, np.clip(1 - age / 0.4, 0, 1))
    b.disc(0, 0.08, 0.62, (1, 1, 0.85), 0.8 * np.clip(1 - b.since() / 0.1, 0, 1))


def clap(b: Brush) -> None:
    gap = 0.03 + 0.5 * b.lift(0.2, 0.24)
    skin = b.tint(0.86, 0.64, 0.48, 0.2)
    for side in (-1, 1):
        u = side * (gap + 0.13)
        tilt = side * (0.1 + 0.25 * gap)
        b.line(u + side * 0.1, 0.5, side * 0.75, 1.0, 0.32, b.tint(0.2, 0.35, 0.75, 0.3))
        b.ellipse(u, 0.12, 0.16, 0.44, skin, shine=0.2, angle=tilt)
        for k in range(3):
            root, tip = u + side * (0.02 + 0.06 * k), u + side * (0.02 + 0.07 * k)
            b.line(root, -0.1, tip, -0.52 + 0.06 * k, 0.1, skin * 0.93)
        b.line(u - side * 0.06, 0.2, u - side * 0.12, -0.12, 0.09, skin * 0.85)
    flash = np.clip(1 - b.since() / 0.16, 0, 1)
    for way in np.linspace(np.pi * 1.1, np.pi * 1.9, 5):
        c, s = float(np.cos(way)), float(np.sin(way))
        b.line(0.62 * c, -0.15 + 0.62 * s, 0.85 * c, -0.15 + 0.82 * s, 0.07, (1, 0.95, 0.4), flash)


def splash(b: Brush) -> None:
    water = b.tint(0.15, 0.42, 0.72)
    fall = np.full(100, np.inf)
    for c in b.contacts:
        gap = (c - FRAMES) / FPS
        fall = np.where((gap > 0) & (gap < 0.5), np.minimum(fall, gap), fall)
    falls = np.isfinite(fall)
    v = np.where(falls, 0.45 - 1.4 * (1 - (1 - np.where(falls, fall, 0) / 0.5) ** 2), 2.0)
    b.disc(0, v, 0.17, b.tint(0.42, 0.4, 0.38), falls.astype(float), shine=0.3)
    b.box(0, 0.78, 0.98, 0.24, water, shine=0.15, corner=0.05)
    b.ellipse(0, 0.56, 0.97, 0.12, water * 1.25)
    since = b.since()
    for lag in (0.0, 0.18):
        age = np.maximum(since - lag, 0)
        wide = np.minimum(0.1 + 1.1 * age, 0.9)
        alive = np.clip(1 - age / 0.8, 0, 1) * (since >= lag)
        b.ellipse(0, 0.56, wide, wide * 0.12, (0.85, 0.93, 1.0), 0.55 * alive)
        b.ellipse(0, 0.56, wide * 0.8, wide * 0.09, water * 1.25, 0.7 * alive)
    column = np.clip(1 - since / 0.3, 0, 1)
    wide, tall = 0.12 + 0.1 * column, 0.1 + 0.42 * column
    b.ellipse(0, 0.5 - 0.3 * column, wide, tall, (0.88, 0.95, 1.0), 0.85 * column)
    n, t = 26, np.minimum(since, 2.0)[:, None]
    side, up = b.rng.normal(0, 0.7, n), b.rng.uniform(1.2, 3.4, n)
    height = 0.05 + up * t - 4.2 * t**2
    b.dots(side * t, 0.52 - height, 1.3, (0.9, 0.96, 1.0), (height > 0) & (since < 1.5)[:, None])


def firework(b: Brush) -> None:
    b.line(0, 0.85, 0, 1.0, 0.12, (0.35, 0.3, 0.3))
    for c in b.contacts:
        gap = (c - FRAMES) / FPS
        flying = (gap > 0) & (gap < 0.56)
        v = -0.3 + 1.15 * np.clip(gap / 0.56, 0, 1) ** 1.3
        b.line(0, v + 0.06, 0, v + 0.24, width=0.06, colour=(1.0, 0.75, 0.3), opacity=0.8 * flying)
        b.disc(0, v, 0.07, (1, 0.95, 0.8), flying.astype(float))
    age = b.since()
    b.disc(0, -0.3, 0.5, (1, 1, 0.9), np.clip(1 - age / 0.12, 0, 1))
    hue = (b.actor.variant * 3) % 3
    first = np.clip(np.array([abs(hue - 1.5) - 0.1, 1 - abs(hue - 1), 1 - abs(hue - 2)]), 0.25, 1)
    n = 34
    for colour, reach in ((first, 0.85), (np.array([1.0, 0.85, 0.35]), 0.5)):
        way, far = b.rng.uniform(0, 2 * np.pi, n), reach * b.rng.uniform(0.7, 1.05, n)
        open_ = 1 - np.exp(-np.minimum(age, 3) / 0.18)[:, None]
        sink = 0.22 * np.minimum(age, 3)[:, None] ** 2
        twinkle = np.where(age[:, None] > 0.2, 0.45 + 0.55 * (b.rng.random((100, n)) < 0.6), 1.0)
        alive = np.clip(1.25 - age / 1.1, 0, 1)[:, None] * (age < 100)[:, None]
        u, v = far * np.cos(way) * open_, -0.3 + far * np.sin(way) * open_ + sink
        b.dots(u, v, 1.1, np.clip(colour, 0, 1).astype(np.float32), alive * twinkle)
