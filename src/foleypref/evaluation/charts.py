"""Charts of the report: small SVG pictures made as text, so the page needs no library and no network.

Colours are CSS variables of the page (`--c0`, `--c1`, …), so one picture serves light and dark. All text
is escaped. Values that are not finite are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from markupsafe import Markup, escape

WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 20, 12, 30
COLOURS = tuple(f"var(--c{i})" for i in range(1, 7))  # `--c0` is the base's


@dataclass(frozen=True)
class Series:
    """One named line or sample of a chart. A histogram reads no `x`."""

    label: str
    colour: str  # a CSS colour, such as "var(--c1)"
    y: np.ndarray
    x: np.ndarray = field(default_factory=lambda: np.zeros(0))
    dashed: bool = False


@dataclass(frozen=True)
class Interval:
    """A dot and the whisker of its interval."""

    label: str
    colour: str
    value: float
    low: float
    high: float


class _Axis:
    """A linear map from values to pixels, with round ticks."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        if not (math.isfinite(low) and math.isfinite(high)):
            low, high = 0.0, 1.0
        if low == high:
            low, high = low - 0.5, high + 0.5
        self.low, self.high, self.start, self.end = low, high, start, end

    def at(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)

    def ticks(self, about: int = 4) -> list[float]:
        step = 10 ** math.floor(math.log10((self.high - self.low) / about))
        for factor in (1, 2, 5, 10):
            if (self.high - self.low) / (step * factor) <= about:
                step *= factor
                break
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def histogram_chart(title: str, series: Sequence[Series]) -> Markup:
    """Draw outlines of several samples over common bins; the height is the share of each sample."""
    samples = [(s, s.y[np.isfinite(s.y)]) for s in series]
    values = np.concatenate([y for _, y in samples]) if samples else np.zeros(0)
    if not values.size:
        return _empty(title)
    num_bins = int(np.clip(1.5 * np.sqrt(max(len(y) for _, y in samples)), 6, 30))
    edges = np.histogram_bin_edges(values, num_bins)
    shares = [(s, np.histogram(y, edges)[0] / max(len(y), 1)) for s, y in samples]
    return step_chart(title, edges, shares)


def step_chart(title: str, edges: np.ndarray, shares: Sequence[tuple[Series, np.ndarray]]) -> Markup:
    """Draw outlined bars without gaps: heights (bins,) over `edges` (bins + 1,)."""
    top = max((float(share.max(initial=0)) for _, share in shares), default=0.0) or 1.0
    x = _Axis(float(edges[0]), float(edges[-1]), LEFT, WIDTH - RIGHT)
    y = _Axis(0.0, top * 1.05, HEIGHT - BOTTOM, TOP)
    parts = [_frame(x, y)]
    outline = Markup(
        '<polygon points="{}" style="fill:{c};stroke:{c}" class="step"><title>{}</title></polygon>'
    )
    for s, share in shares:
        points = [(x.at(edges[0]), y.at(0))]
        for i, value in enumerate(share):
            points += [(x.at(edges[i]), y.at(value)), (x.at(edges[i + 1]), y.at(value))]
        points.append((x.at(edges[-1]), y.at(0)))
        parts.append(outline.format(_points(points), s.label, c=s.colour))
    return _svg(title, parts)


def line_chart(title: str, series: Sequence[Series], diagonal: bool = False) -> Markup:
    """Draw curves with common axes; long ones are thinned to 400 points by averaging."""
    curves = [s for s in map(_thin, series) if len(s.x)]
    if not curves:
        return _empty(title)
    xs, ys = np.concatenate([s.x for s in curves]), np.concatenate([s.y for s in curves])
    left, right, low, high = (0, 1, 0, 1) if diagonal else (xs.min(), xs.max(), ys.min(), ys.max())
    x, y = _Axis(left, right, LEFT, WIDTH - RIGHT), _Axis(low, high, HEIGHT - BOTTOM, TOP)
    parts = [_frame(x, y)]
    if diagonal:
        parts.append(_line(x.at(0), y.at(0), x.at(1), y.at(1), "guide"))
    dot = Markup('<circle cx="{}" cy="{}" r="3" style="fill:{}"/>')
    curve = Markup('<polyline points="{}" style="stroke:{}" class="curve{}"><title>{}</title></polyline>')
    for s in curves:
        points = [(x.at(a), y.at(b)) for a, b in zip(s.x, s.y)]
        if len(points) == 1 or diagonal:
            parts += [dot.format(*point, s.colour) for point in points]
        parts.append(curve.format(_points(points), s.colour, " dashed" if s.dashed else "", s.label))
    return _svg(title, parts)


def interval_chart(title: str, items: Sequence[Interval]) -> Markup:
    """Draw dots with whiskers, one per line; the first item's value is drawn down the whole chart."""
    ends = [v for i in items for v in (i.value, i.low, i.high) if math.isfinite(v)]
    if not ends:
        return _empty(title)
    names = 118
    height = TOP + 24 * len(items) + BOTTOM
    margin = 0.04 * (max(ends) - min(ends))
    x = _Axis(min(ends) - margin, max(ends) + margin, names, WIDTH - RIGHT)
    bottom = height - BOTTOM
    parts = [_ticks_below(x, bottom, TOP)]
    if math.isfinite(items[0].value):
        parts.append(_line(x.at(items[0].value), TOP, x.at(items[0].value), bottom, "guide"))
    for row, item in enumerate(items):
        y = TOP + 24 * row + 12
        label = item.label if len(item.label) < 18 else item.label[:16] + "…"
        parts.append(Markup('<text x="{}" y="{}" class="name">{}</text>').format(names - 8, y + 4, label))
        if math.isfinite(item.low) and math.isfinite(item.high):
            whisker = '<line x1="{}" y1="{y}" x2="{}" y2="{y}" style="stroke:{}" class="whisker"/>'
            parts.append(Markup(whisker).format(x.at(item.low), x.at(item.high), item.colour, y=y))
        if math.isfinite(item.value):
            dot = '<circle cx="{}" cy="{}" r="4.5" style="fill:{}"><title>{} {:.4g}</title></circle>'
            parts.append(Markup(dot).format(x.at(item.value), y, item.colour, item.label, item.value))
    return _svg(title, parts, height)


def bar_chart(title: str, labels: Sequence[str], values: Sequence[float]) -> Markup:
    """Draw horizontal bars from zero, one per line."""
    if not labels:
        return _empty(title)
    names, height = 150, TOP + 22 * len(labels) + BOTTOM
    finite = [v for v in values if math.isfinite(v)] or [0.0]
    x = _Axis(min(0.0, *finite), max(0.0, *finite), names, WIDTH - RIGHT)
    parts = [_ticks_below(x, height - BOTTOM, TOP)]
    for row, (label, value) in enumerate(zip(labels, values)):
        y = TOP + 22 * row
        parts.append(Markup('<text x="{}" y="{}" class="name">{}</text>').format(names - 8, y + 15, label))
        if math.isfinite(value):
            left, right = sorted((x.at(0), x.at(value)))
            bar = '<rect x="{}" y="{}" width="{:.1f}" height="14" class="bar"><title>{:.4g}</title></rect>'
            parts.append(Markup(bar).format(left, y + 4, right - left, value))
    return _svg(title, parts, height)


def _thin(s: Series, most: int = 400) -> Series:
    good = np.isfinite(s.x) & np.isfinite(s.y)
    x, y = s.x[good], s.y[good]
    if len(x) > most:
        groups = np.array_split(np.arange(len(x)), most)
        x, y = np.array([x[g].mean() for g in groups]), np.array([y[g].mean() for g in groups])
    return replace(s, x=x, y=y)


def _svg(title: str, parts: Sequence[Markup], height: int = HEIGHT) -> Markup:
    head = Markup('<figure class="chart"><figcaption>{}</figcaption>').format(title)
    picture = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, height, title)
    return head + picture + Markup("").join(parts) + Markup("</svg></figure>")


def _empty(title: str) -> Markup:
    return Markup(
        '<figure class="chart"><figcaption>{}</figcaption><p class="quiet">no data</p></figure>'
    ).format(title)


def _frame(x: _Axis, y: _Axis) -> Markup:
    parts = [_ticks_below(x, HEIGHT - BOTTOM, None)]
    for tick in y.ticks():
        at = y.at(tick)
        parts.append(_line(LEFT, at, WIDTH - RIGHT, at, "grid"))
        parts.append(_tick(LEFT - 6, at + 4, "tick end", tick))
    return Markup("").join(parts)


def _ticks_below(x: _Axis, bottom: float, grid_top: float | None) -> Markup:
    parts = [_line(x.start, bottom, x.end, bottom, "axis")]
    for tick in x.ticks():
        at = x.at(tick)
        if grid_top is not None:
            parts.append(_line(at, grid_top, at, bottom, "grid"))
        parts.append(_tick(at, bottom + 16, "tick", tick))
    return Markup("").join(parts)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}"/>').format(x1, y1, x2, y2, kind)


def _points(points: Sequence[tuple[float, float]]) -> Markup:
    return escape(" ".join(f"{x:g},{y:g}" for x, y in points))


def _tick(x: float, y: float, kind: str, value: float) -> Markup:
    large = abs(value) >= 10_000
    text = f"{value / 1000:g}k" if large else f"{round(value, 10):.4g}".replace("-", "−")
    return Markup('<text x="{}" y="{}" class="{}">{}</text>').format(x, y, kind, text)
