"""Anti-aliased shapes on 100 frames at once.

Every shape is a signed distance (pixels, negative inside) evaluated only in the box it can touch, for all
frames in one numpy call; its edge is blended over one pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from foleypref.world import FRAME_SIZE, NUM_FRAMES

Array = NDArray[np.floating]
Floats = NDArray[np.float64]
Number = ArrayLike  # one for all frames, or (100,)
Distance = Callable[..., Array]
Colour = tuple[float, float, float] | Array  # RGB in [0, 1]; or (100, 3)


class Canvas:
    """pixels: (100, 96, 96, 3) float32 in [0, 1], painted from back to front.

    Shapes are placed in units of `unit` pixels about `origin` (pixels): x points right, y down.
    """

    def __init__(self, pixels: Array, origin: tuple[float, float] = (0.0, 0.0), unit: float = 1.0) -> None:
        self.pixels, self.origin, self.unit = pixels, origin, unit

    @classmethod
    def on(cls, background: Array) -> Canvas:
        """Start every frame from one picture (96, 96, 3), with units of pixels from the upper left corner."""
        return Canvas(np.repeat(background[None].astype(np.float32), NUM_FRAMES, axis=0))

    def to_uint8(self) -> NDArray[np.uint8]:
        return (np.clip(self.pixels, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)

    def disc(
        self, x: Number, y: Number, r: Number, colour: Colour, opacity: Number = 1.0, shine: float = 0.0
    ) -> None:
        r = self._scale(r)
        m = _most(r)

        def distance(u: Array, v: Array, r: Array) -> Array:
            return np.sqrt(u * u + v * v) - r

        self._paint(self._place(x, y), (m, m), distance, r, colour=colour, opacity=opacity, shine=shine)

    def ring(
        self, x: Number, y: Number, r: Number, width: float, colour: Colour, opacity: Number = 1.0
    ) -> None:
        r, width = self._scale(r), self.unit * width
        m = _most(r) + width

        def distance(u: Array, v: Array, r: Array) -> Array:
            return np.abs(np.sqrt(u * u + v * v) - r) - width / 2

        self._paint(self._place(x, y), (m, m), distance, r, colour=colour, opacity=opacity)

    def ellipse(
        self,
        x: Number,
        y: Number,
        a: Number,
        b: Number,
        colour: Colour,
        opacity: Number = 1.0,
        shine: float = 0.0,
        angle: Number = 0.0,
    ) -> None:
        """Draw an ellipse with the half axes a and b.

        The distance is exact to first order at the edge, which is enough for anti-aliasing.
        """
        a, b = self._scale(a), self._scale(b)
        turned, m = bool(np.any(angle)), max(_most(a), _most(b))

        def distance(u: Array, v: Array, a: Array, b: Array, angle: Array) -> Array:
            if turned:
                u, v = _turn(u, v, angle)
            a, b = np.maximum(a, 0.3), np.maximum(b, 0.3)
            p, q = u / a, v / b
            k = np.sqrt(p * p + q * q)
            return k * (k - 1) / np.maximum(np.sqrt((p / a) ** 2 + (q / b) ** 2), 1e-6)

        reach, place = (m, m) if turned else (_most(a), _most(b)), self._place(x, y)
        self._paint(place, reach, distance, a, b, angle, colour=colour, opacity=opacity, shine=shine)

    def box(
        self,
        x: Number,
        y: Number,
        w: Number,
        h: Number,
        colour: Colour,
        opacity: Number = 1.0,
        shine: float = 0.0,
        angle: Number = 0.0,
        corner: float = 0.0,
    ) -> None:
        """Draw a box with half width w and half height h, its corners rounded by the radius `corner`."""
        w, h, corner = self._scale(w), self._scale(h), self.unit * corner
        turned, m = bool(np.any(angle)), float(np.hypot(_most(w), _most(h)))

        def distance(u: Array, v: Array, w: Array, h: Array, angle: Array) -> Array:
            if turned:
                u, v = _turn(u, v, angle)
            p, q = np.abs(u) - w + corner, np.abs(v) - h + corner
            if not corner:
                return np.maximum(p, q)
            outside = np.sqrt(np.maximum(p, 0) ** 2 + np.maximum(q, 0) ** 2)
            return np.minimum(np.maximum(p, q), 0) + outside - corner

        reach, place = (m, m) if turned else (_most(w), _most(h)), self._place(x, y)
        self._paint(place, reach, distance, w, h, angle, colour=colour, opacity=opacity, shine=shine)

    def line(
        self,
        x0: Number,
        y0: Number,
        x1: Number,
        y1: Number,
        width: float,
        colour: Colour,
        opacity: Number = 1.0,
    ) -> None:
        """Draw a stroke with round ends, at least a pixel wide, from (x0, y0) to (x1, y1)."""
        width = max(1.0, self.unit * width)
        (x0, y0), (x1, y1) = self._place(x0, y0), self._place(x1, y1)
        dx, dy = np.subtract(x1, x0) / 2, np.subtract(y1, y0) / 2

        def distance(u: Array, v: Array, dx: Array, dy: Array) -> Array:
            h = np.clip((u * dx + v * dy) / (dx * dx + dy * dy + 1e-6), -1, 1)
            return np.sqrt((u - h * dx) ** 2 + (v - h * dy) ** 2) - width / 2

        reach = (_most(dx) + width / 2, _most(dy) + width / 2)
        middle = np.add(x0, dx), np.add(y0, dy)
        self._paint(middle, reach, distance, dx, dy, colour=colour, opacity=opacity)

    def polygon(
        self,
        x: Number,
        y: Number,
        corners: Sequence[tuple[Number, Number]],
        colour: Colour,
        opacity: Number = 1.0,
        shine: float = 0.0,
    ) -> None:
        """Draw a convex polygon; corners are relative to (x, y), clockwise as seen on the screen."""
        scaled = [(self._scale(a), self._scale(b)) for a, b in corners]
        flat = [number for corner in scaled for number in corner]
        reach = (max(_most(c[0]) for c in scaled), max(_most(c[1]) for c in scaled))

        def distance(u: Array, v: Array, *flat: Array) -> Array:
            out: Array = np.full((1, 1, 1), -1e9, np.float32)
            for i in range(0, len(flat), 2):
                ax, ay, bx, by = flat[i], flat[i + 1], flat[(i + 2) % len(flat)], flat[(i + 3) % len(flat)]
                ex, ey = bx - ax, by - ay
                out = np.maximum(out, (ey * (u - ax) - ex * (v - ay)) / np.sqrt(ex * ex + ey * ey + 1e-6))
            return out

        self._paint(self._place(x, y), reach, distance, *flat, colour=colour, opacity=opacity, shine=shine)

    def dots(
        self, x: Number, y: Number, r_px: float, colour: Colour, opacity: Number, stretch: float = 1.0
    ) -> None:
        """Draw particles: x, y, opacity are (100, n); `stretch` > 1 draws them as vertical streaks."""
        places = self._place(x, y)
        x, y, opacity = np.broadcast_arrays(*(np.asarray(v, np.float32) for v in (*places, opacity)))
        t, n = np.nonzero(
            (opacity > 0.02) & (x > -2) & (x < FRAME_SIZE + 2) & (y > -2) & (y < FRAME_SIZE + 2)
        )
        if not len(t):
            return
        px, py, alpha = x[t, n], y[t, n], opacity[t, n]
        half, tall = int(np.ceil(r_px)), int(np.ceil(r_px * stretch))
        dx, dy = np.meshgrid(np.arange(-half, half + 1), np.arange(-tall, tall + 1))
        column = np.floor(px)[:, None] + dx.ravel()
        row = np.floor(py)[:, None] + dy.ravel()
        far = np.hypot(column + 0.5 - px[:, None], (row + 0.5 - py[:, None]) / stretch)
        a = np.clip(r_px + 0.5 - far, 0, 1) * alpha[:, None]
        keep = (column >= 0) & (column < FRAME_SIZE) & (row >= 0) & (row < FRAME_SIZE) & (a > 0)
        flat = ((t[:, None] * FRAME_SIZE + row) * FRAME_SIZE + column)[keep].astype(np.intp)
        # Where particles overlap their opacities add up to at most 1, in any order of drawing.
        total = np.minimum(np.bincount(flat, a[keep], minlength=self.pixels.size // 3), 1)
        touched = np.flatnonzero(total)
        pixels = self.pixels.reshape(-1, 3)
        paint = np.asarray(colour, np.float32)
        pixels[touched] += total[touched, None].astype(np.float32) * (paint - pixels[touched])

    def _place(self, x: Number, y: Number) -> tuple[Floats, Floats]:
        (x0, y0), unit = self.origin, self.unit
        return x0 + unit * np.asarray(x, np.float64), y0 + unit * np.asarray(y, np.float64)

    def _scale(self, length: Number) -> Floats:
        return self.unit * np.asarray(length)

    def _paint(
        self,
        place: tuple[Floats, Floats],
        reach: tuple[float, float],
        distance: Distance,
        *numbers: Number,
        colour: Colour,
        opacity: Number = 1.0,
        shine: float = 0.0,
    ) -> None:
        """Blend one shape about `place`, which touches nothing beyond `reach` pixels (horizontal, vertical).

        `distance(u, v, *numbers)` gets pixels relative to the place, and the numbers shaped to broadcast.
        `shine` lightens the upper left and darkens the lower right, which makes a flat shape look round.
        """
        opacity = np.asarray(opacity, np.float32)
        frames = np.flatnonzero(opacity > 0.004) if opacity.ndim else np.arange(NUM_FRAMES)
        if not len(frames) or (not opacity.ndim and opacity <= 0.004):
            return

        def shaped(value: Number) -> Array:  # (t, 1, 1), or (1, 1, 1) for what never changes
            array = np.asarray(value, np.float32)
            return (array[frames] if array.ndim else array.reshape(1))[:, None, None]

        cx, cy = map(shaped, place)
        rows, columns = _box(cy, reach[1]), _box(cx, reach[0])
        if rows.size == 0 or columns.size == 0:
            return
        u, v = columns[..., None, :] + 0.5 - cx, rows[..., None] + 0.5 - cy
        alpha = np.clip(0.5 - distance(u, v, *map(shaped, numbers)), 0, 1) * shaped(opacity)  # (t | 1, h, w)
        paint: Array = np.asarray(colour, np.float32)
        paint = paint[frames][:, None, None, :] if paint.ndim == 2 else paint
        if shine:
            light = np.float32(1) - np.float32(shine / max(reach)) * (0.6 * u + v)
            paint = paint * light[..., None]
        rows, columns, alpha = rows.astype(np.intp), columns.astype(np.intp), alpha[..., None]
        if len(rows) == 1 and len(columns) == 1 and len(frames) == NUM_FRAMES:  # a fixed box: no copy
            view = self.pixels[:, rows[0, 0] : rows[0, -1] + 1, columns[0, 0] : columns[0, -1] + 1]
            if alpha.shape[0] == 1 and not any(np.ndim(v) for v in (*place, *numbers)):
                view *= 1 - alpha
                view += alpha * paint
            else:
                view += alpha * (paint - view)
            return
        where = (frames[:, None, None], rows[:, :, None], columns[:, None, :])
        pixels = self.pixels[where]
        self.pixels[where] = pixels + alpha * (paint - pixels)


def _most(value: Number) -> float:
    return float(np.max(np.abs(value)))


def _turn(u: Array, v: Array, angle: Array) -> tuple[Array, Array]:
    c, s = np.cos(angle), np.sin(angle)
    return u * c + v * s, v * c - u * s


def _box(centre: Array, reach: float) -> Array:
    """Return the pixel rows or columns (t | 1, n) a shape can touch: one range for all frames if cheap."""
    low, high = np.floor(centre.reshape(-1) - reach - 1), np.ceil(centre.reshape(-1) + reach + 1)
    size = int(min(FRAME_SIZE, np.max(high - low)))
    start, stop = max(0.0, float(low.min())), min(float(FRAME_SIZE), float(high.max()))
    if stop <= start:
        return np.empty((1, 0), np.float32)
    if stop - start <= 1.6 * size:
        return np.arange(start, stop, dtype=np.float32)[None]
    return (np.clip(low, 0, FRAME_SIZE - size)[:, None] + np.arange(size)).astype(np.float32)
