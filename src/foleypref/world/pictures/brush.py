"""A canvas seen from one actor: its unit coordinates, clock and colours.

u points right, v down, and 1 is the actor's half-width."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from foleypref.world import FPS, NUM_FRAMES
from foleypref.world.canvas import Array, Canvas, Colour
from foleypref.world.scenes import Actor

Floats = NDArray[np.float64]
FRAMES = np.arange(NUM_FRAMES)


class Brush:
    """Draws in the units of one actor; the methods are those of Canvas."""

    def __init__(self, canvas: Canvas, actor: Actor) -> None:
        self.canvas, self.actor, self.size = canvas, actor, actor.size_px
        self.line_of_time = actor.timeline
        self.rng = np.random.Generator(np.random.PCG64([actor.seed, 1]))
        self.contacts = np.round(np.array(actor.timeline.onsets_s) * FPS).astype(int)
        self.driver: Floats = np.array(actor.timeline.driver)
        self.pose: Floats = np.array(actor.timeline.pose)

    def x(self, u: ArrayLike) -> Floats:
        return self.actor.x_px + self.size * np.asarray(u, np.float64)

    def y(self, v: ArrayLike) -> Floats:
        return self.actor.y_px + self.size * np.asarray(v, np.float64)

    def tint(self, red: float, green: float, blue: float, spread: float = 0.1) -> Array:
        """Return the colour shifted by the actor's shade: lighter or darker, warmer or cooler."""
        s, w = self.actor.shade * spread, (self.actor.variant - 0.5) * spread
        return np.clip(np.array([red + s + w, green + s, blue + s - w], np.float32), 0.02, 0.98)

    def disc(
        self,
        u: ArrayLike,
        v: ArrayLike,
        r: ArrayLike,
        colour: Colour,
        opacity: ArrayLike = 1.0,
        shine: float = 0.0,
    ) -> None:
        self.canvas.disc(self.x(u), self.y(v), self.size * np.asarray(r), colour, opacity, shine)

    def ring(
        self, u: ArrayLike, v: ArrayLike, r: ArrayLike, width: float, colour: Colour, opacity: ArrayLike = 1.0
    ) -> None:
        self.canvas.ring(self.x(u), self.y(v), self.size * np.asarray(r), self.size * width, colour, opacity)

    def ellipse(
        self,
        u: ArrayLike,
        v: ArrayLike,
        a: ArrayLike,
        b: ArrayLike,
        colour: Colour,
        opacity: ArrayLike = 1.0,
        shine: float = 0.0,
        angle: ArrayLike = 0.0,
    ) -> None:
        half = self.size * np.asarray(a), self.size * np.asarray(b)
        self.canvas.ellipse(self.x(u), self.y(v), *half, colour, opacity, shine, angle)

    def box(
        self,
        u: ArrayLike,
        v: ArrayLike,
        w: ArrayLike,
        h: ArrayLike,
        colour: Colour,
        opacity: ArrayLike = 1.0,
        shine: float = 0.0,
        angle: ArrayLike = 0.0,
        corner: float = 0.0,
    ) -> None:
        half = self.size * np.asarray(w), self.size * np.asarray(h)
        self.canvas.box(self.x(u), self.y(v), *half, colour, opacity, shine, angle, self.size * corner)

    def line(
        self,
        u0: ArrayLike,
        v0: ArrayLike,
        u1: ArrayLike,
        v1: ArrayLike,
        width: float,
        colour: Colour,
        opacity: ArrayLike = 1.0,
    ) -> None:
        self.canvas.line(
            self.x(u0), self.y(v0), self.x(u1), self.y(v1), max(1.0, self.size * width), colour, opacity
        )

    def polygon(
        self,
        u: ArrayLike,
        v: ArrayLike,
        corners: Sequence[tuple[ArrayLike, ArrayLike]],
        colour: Colour,
        opacity: ArrayLike = 1.0,
        shine: float = 0.0,
    ) -> None:
        """A convex polygon, corners relative to (u, v), clockwise as seen."""
        scaled = tuple((self.size * np.asarray(a), self.size * np.asarray(b)) for a, b in corners)
        self.canvas.triangle(self.x(u), self.y(v), scaled, colour, opacity, shine)

    def dots(
        self,
        u: ArrayLike,
        v: ArrayLike,
        r_px: float,
        colour: Colour,
        opacity: ArrayLike,
        stretch: float = 1.0,
    ) -> None:
        """Particles (100, n), radius in pixels."""
        self.canvas.dots(self.x(u), self.y(v), r_px, colour, opacity, stretch)

    def since(self) -> Floats:
        """Return seconds since the last contact (100,), 1000 before the first."""
        out = np.full(NUM_FRAMES, 1000.0)
        for c in self.contacts:
            out[c:] = (FRAMES[c:] - c) / FPS
        return out

    def lift(self, down_s: float = 0.2, up_s: float = 0.28) -> Floats:
        """Return how far a striking part is from contact (100,): 0 on the frame of contact, 1 at rest."""
        out = np.ones(NUM_FRAMES)
        for c in self.contacts:
            gap = (FRAMES - c) / FPS
            before = np.maximum(0, -gap / down_s) ** 0.8
            after = np.sin(np.pi / 2 * np.clip(gap / up_s, 0, 1))
            out = np.minimum(out, np.where(gap <= 0, before, after))
        return np.asarray(out)

    def opening(self, peaks: Sequence[float] | None = None) -> Floats:
        """Return how wide a beak or mouth is open (100,), from the onset to the end."""
        out, line = np.zeros(NUM_FRAMES), self.line_of_time
        for i, (c, length) in enumerate(zip(self.contacts, line.durations_s, strict=True)):
            n = max(2, round(length * FPS))
            k = np.arange(min(n + 1, NUM_FRAMES - c))
            shape = np.minimum(1, 0.7 + 0.3 * k) * np.clip((n + 0.5 - k) / 1.5, 0, 1)
            height = peaks[i] if peaks is not None else 0.55 + 0.45 * line.strengths[i]
            out[c : c + len(k)] = np.maximum(out[c : c + len(k)], height * shape)
        return out

    def hop(self, first_s: float = 0.42) -> Floats:
        """Return the height of a bouncing ball (100,): 1 before it falls, 0 at contacts."""
        contacts, gaps = self.contacts, np.diff(self.contacts) / FPS
        seconds_to_first = (contacts[0] - FRAMES) / FPS
        out = np.clip(1 - np.maximum(0, 1 - seconds_to_first / first_s) ** 2, 0, 1)
        out[contacts[0] :] = 0
        top = 0.75 / max(0.5, gaps.max() ** 2) if len(gaps) else 1.0
        for c, n in zip(contacts, np.diff(contacts), strict=False):
            p = np.arange(n) / n
            out[c : c + n] = 4 * p * (1 - p) * min(0.95, top * (n / FPS) ** 2)
        return out
