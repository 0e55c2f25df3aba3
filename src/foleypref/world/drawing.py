"""From a scene to its frames: a background, what makes no sound, and the actors in front."""

import numpy as np
from numpy.typing import NDArray

from foleypref.world import FRAME_SIZE, NUM_FRAMES
from foleypref.world.canvas import Array, Canvas
from foleypref.world.pictures import bursts, calls, impacts, scrapes, textures, voices
from foleypref.world.pictures.brush import Brush
from foleypref.world.scenes import Distractor, Scene

FILES = {
    "impact": impacts,
    "scrape": scrapes,
    "burst": bursts,
    "texture": textures,
    "call": calls,
    "voice": voices,
}  # by family
PASTEL = (0.85, 0.8, 0.95)
_V, _U = np.mgrid[0:FRAME_SIZE, 0:FRAME_SIZE].astype(np.float32) / FRAME_SIZE


def _rgb(red: float, green: float, blue: float) -> Array:
    return np.array([red, green, blue], np.float32)


def render_frames(scene: Scene) -> NDArray[np.uint8]:
    """Draw all frames of a scene: (100, 96, 96, 3) RGB."""
    canvas = Canvas.on(background(scene.background, np.random.default_rng(scene.background_seed)))
    if scene.distractor is not None:
        distract(canvas, scene.distractor)
    for actor in reversed(scene.actors):
        getattr(FILES[actor.family], actor.label)(Brush(canvas, actor))
    return canvas.to_uint8()


def background(kind: str, rng: np.random.Generator) -> Array:
    """Paint one still background (96, 96, 3); colours, horizon and furniture vary."""
    horizon = float(rng.uniform(0.6, 0.8))
    tone = rng.uniform(-0.07, 0.07, 3).astype(np.float32)
    ramp = (_V / horizon)[..., None]
    ground = horizon < _V
    if kind == "hills":
        image = (1 - ramp) * _rgb(0.52, 0.72, 0.93) + ramp * _rgb(0.85, 0.92, 0.98)
        for k in range(2):
            rate, shift = rng.uniform(4, 9), rng.uniform(0, 6)
            top = horizon - 0.1 + 0.07 * k + 0.05 * np.sin(rate * _U + shift)
            hill = np.clip((_V - top) * FRAME_SIZE + 0.5, 0, 1)[..., None]
            image = (1 - hill) * image + hill * _rgb(0.5 - 0.12 * k, 0.66 - 0.1 * k, 0.4 - 0.06 * k)
    elif kind == "dusk":
        image = (1 - ramp) * _rgb(0.06, 0.07, 0.17) + ramp * _rgb(0.24, 0.17, 0.3)
        image = np.where(
            (rng.random((FRAME_SIZE, FRAME_SIZE)) > 0.996)[..., None] & ~ground[..., None], 0.75, image
        )
        image = np.where(ground[..., None], _rgb(0.1, 0.1, 0.12), image)
    elif kind == "tiles":
        step = int(rng.integers(12, 20))
        grout = ((_U * FRAME_SIZE).astype(int) % step == 0) | ((_V * FRAME_SIZE).astype(int) % step == 0)
        image = np.where(grout[..., None], np.float32(0.62), _rgb(0.76, 0.79, 0.78) - 0.05 * ramp)
        image = np.where(ground[..., None], _rgb(0.5, 0.48, 0.46), image)
    elif kind == "room":
        image = _rgb(0.8, 0.74, 0.64) * (1.05 - 0.15 * ramp)
        left, wide = rng.uniform(0.05, 0.6), rng.uniform(0.2, 0.35)
        pane = (abs(_U - left - wide / 2) < wide / 2) & (abs(_V - 0.22) < 0.14)
        image = np.where(pane[..., None], _rgb(0.68, 0.79, 0.86), image)
        image = np.where(ground[..., None], _rgb(0.55, 0.42, 0.31) * (1.25 - 0.3 * _V[..., None]), image)
    else:
        image = _rgb(*rng.uniform(0.45, 0.85, 3)) * (1.08 - 0.25 * _V[..., None])
    return np.clip(image + tone, 0, 1).astype(np.float32)


def distract(canvas: Canvas, thing: Distractor) -> None:
    """Draw something pastel that moves and makes no sound."""
    t = np.arange(NUM_FRAMES) / 25 * thing.speed
    rng = np.random.default_rng(thing.seed)
    x0, y0 = thing.x_px, thing.y_px
    if thing.kind == "paper_plane":
        x, y = (x0 + 26 * t) % 116 - 10, y0 + 4 * np.sin(2.2 * t)
        canvas.polygon(x, y, ((-8, -5), (9, 0), (-8, 1)), (0.97, 0.97, 1.0))
        canvas.polygon(x, y, ((-8, 1), (9, 0), (-5, 6)), PASTEL)
    elif thing.kind == "blinking_light":
        lit = (np.sin(2 * np.pi * t * 0.9 + x0) > 0).astype(float)
        canvas.disc(x0, y0, 4.5, (0.35, 0.35, 0.4))
        canvas.disc(x0, y0, 3.5, (1.0, 0.75, 0.9), 0.15 + 0.85 * lit)
        canvas.disc(x0, y0, 9.0, (1.0, 0.8, 0.95), 0.3 * lit)
    elif thing.kind == "bubbles":
        for _ in range(4):
            start, way = rng.uniform(0, 100), rng.uniform(0, 6)
            x, y = x0 + 8 * np.sin(1.6 * t + way), (start - 20 * t) % 110 - 6
            canvas.disc(x, y, 3.6, PASTEL, 0.3)
            canvas.ring(x, y, 3.6, 1.0, (1, 1, 1), 0.75)
    else:  # a butterfly
        x, y = x0 + 14 * np.sin(1.3 * t), y0 + 6 * np.sin(2.9 * t)
        flap = 0.35 + 0.65 * np.abs(np.cos(9 * t))
        for side in (-1, 1):
            canvas.ellipse(x + side * 3.6 * flap, y - 1.5, 3.6 * flap, 4.2, (0.95, 0.75, 0.95))
            canvas.ellipse(x + side * 2.8 * flap, y + 3.0, 2.8 * flap, 2.8, (0.75, 0.8, 0.98))
        canvas.box(x, y, 0.8, 4.5, (0.3, 0.25, 0.35))
