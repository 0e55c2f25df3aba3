"""A canvas in one actor's units, with the actor's clock and colours."""

from collections.abc import Sequence

import numpy as np

from foleypref.world import FPS, NUM_FRAMES
from foleypref.world.canvas import Array, Canvas, Floats
from foleypref.world.scenes import Actor

FRAMES = np.arange(NUM_FRAMES)


class Brush(Canvas):
    """Draws about one actor's place; 1 is the actor's half-width."""

    def __init__(self, canvas: Canvas, actor: Actor) -> None:
        super().__init__(canvas.pixels, (actor.x_px, actor.y_px), actor.size_px)
        self.actor = actor
        self.rng = np.random.Generator(np.random.PCG64([actor.seed, 1]))
        self.contacts = np.round(np.array(actor.timeline.onsets_s) * FPS).astype(int)
        self.driver: Floats = np.array(actor.timeline.driver)
        self.pose: Floats = np.array(actor.timeline.pose)

    def tint(self, red: float, green: float, blue: float, spread: float = 0.1) -> Array:
        """Return the colour shifted by the actor's shade: lighter or darker, warmer or cooler."""
        s, w = self.actor.shade * spread, (self.actor.variant - 0.5) * spread
        return np.clip(np.array([red + s + w, green + s, blue + s - w], np.float32), 0.02, 0.98)

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
        out, line = np.zeros(NUM_FRAMES), self.actor.timeline
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
