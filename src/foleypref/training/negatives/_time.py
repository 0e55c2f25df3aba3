"""Reading a stream at other times, shared by the rules that move content in time.

Letters: N steps of the result, M steps of the material read from, p positions in it (fractions allowed).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from foleypref.training.negatives import Stream

Fill = Literal["join", "reflect"]

FADE_S = 0.01  # seconds of cross-fade at a cut: takes the click out of a wave; shorter than a latent or frame
JUMP = 2.5  # steps: positions that leave their course by more are a cut, not a change of speed
PROFILE_S = 0.01  # seconds of sound per row of its level profile
SIDE = 8  # pixels of the thumbnails by which frames are compared


def chance(generator: torch.Generator) -> float:
    """Draw one number, uniform in [0, 1)."""
    return float(torch.rand((), generator=generator, dtype=torch.float64))


def start_of(num: int, length: int, generator: torch.Generator) -> int:
    """Draw where a span of `length` out of `num` steps begins, every place equally likely."""
    # drawn as a share of the free steps, so it is the same moment in streams of any rate
    return int(chance(generator) * (num - length + 1))


def steps_of(num: int) -> Float[Tensor, " N"]:
    """Return the positions 0 to num - 1, at which reading changes nothing."""
    return torch.arange(num, dtype=torch.float64)


def read_at(stream: Stream, p: Float[Tensor, " N"]) -> Shaped[Tensor, "N ..."]:
    """Read the material at positions p: nearest for frames, linear for latents, Catmull-Rom for waves.

    Whole positions return the stored values to the bit.
    """
    material = stream.material
    p = p.clamp(0, len(material) - 1)
    if stream.kind == "frames":
        return material[p.round().long()]
    low = p.floor().long()
    w = (p - low).reshape(-1, *[1] * (material.ndim - 1))
    if stream.kind == "latents":
        high = (low + 1).clamp(max=len(material) - 1)
        a, b = material[low].double(), material[high].double()
        return (a + w * (b - a)).to(material.dtype)
    a, b, c, d = (material[(low + offset).clamp(0, len(material) - 1)].double() for offset in (-1, 0, 1, 2))
    cubic = b + 0.5 * w * (c - a + w * (2 * a - 5 * b + 4 * c - d + w * (3 * (b - c) + d - a)))
    return cubic.to(material.dtype)


def played(stream: Stream, p: Float[Tensor, " N"]) -> Shaped[Tensor, "N ..."]:
    """Read the material at positions p; a wave gets a short cross-fade where p jumps."""
    out, fade = read_at(stream, p), round(FADE_S * stream.rate)
    if stream.kind != "wave" or fade < 2:
        return out
    course = p[1:] - p[:-1]
    for cut in (course.abs() > JUMP).nonzero().flatten().tolist():
        begin, speed = cut + 1, float(course[cut - 1].clamp(-JUMP, JUMP)) if cut else 1.0
        num = min(fade, len(p) - begin)
        gone_on = p[cut] + speed * torch.arange(1, num + 1)
        w = torch.linspace(0, 1, num + 2, dtype=torch.float64)[1:-1].to(out)
        out[begin : begin + num] = (1 - w) * read_at(stream, gone_on) + w * out[begin : begin + num]
    return out


def filled(stream: Stream, p: Float[Tensor, " N"], fill: Fill, apart: int = 0) -> Float[Tensor, " N"]:
    """Return positions p with those before the material's begin or past its end moved inside.

    "join" plays the clip's own sound forwards, from the place that joins best with the sound beside the gap
    and is at least `apart` steps out of step. Silence would give a shift away by its edge, and a loop of the
    clip by its seam. "reflect" plays backwards from the edge: it has no seam, but sounds swell and stop dead.
    """
    end = len(stream.material) - 1
    before, after = p < 0, p > end
    if fill == "reflect":
        return torch.where(before, -p, torch.where(after, 2 * end - p, p)).clamp(0, end)
    moved = p.clone()
    rows, size = _profile(stream)
    if before.any():
        moved[before] += _best_join(rows, size, p[before], edge=0, apart=apart, end=end)
    if after.any():
        moved[after] += _best_join(rows, size, p[after], edge=len(rows) - 1, apart=apart, end=end)
    return moved


def _best_join(rows: Tensor, size: int, run: Tensor, *, edge: int, apart: int, end: int) -> float:
    """Return how far to move a run of positions from outside, so that it lies inside and joins row `edge`.

    The run lies before the begin (edge 0: its last step must resemble the first row) or past the end.
    """
    first, last = float(run[0]), float(run[-1])
    inner = last if edge == 0 else first
    lowest, highest = -min(first, last), end - max(first, last)
    places = torch.arange(len(rows), dtype=torch.float64) * size  # where the joining step can lie
    moves = places - inner
    usable = (moves >= lowest) & (moves <= highest)
    # the run is `apart` out of step already: a move of 2 · apart leaves it out of step by as much at least
    far = usable & (moves.abs() >= 2 * apart)
    if not usable.any():
        return highest if edge == 0 else lowest
    if not far.any():
        return float(moves[usable][moves[usable].abs().argmax()])
    distance = (rows - rows[edge]).square().flatten(1).sum(1)
    return float(moves[far][distance[far].argmin()])


def _profile(stream: Stream) -> tuple[Tensor, int]:
    """Describe how steps sound or look: rows (R, ...) float64, and how many steps each row covers."""
    x = stream.material
    if stream.kind == "latents":
        return x.double(), 1
    if stream.kind == "frames":
        skip = max(min(x.shape[1:3]) // (8 * SIDE), 1)  # every skip-th pixel is enough for large pictures
        grey = x[:, ::skip, ::skip].double().mean(-1)[:, None]  # (N, 1, H, W)
        return F.adaptive_avg_pool2d(grey, SIDE), 1
    size = max(1, round(PROFILE_S * stream.rate))
    rows = x[: len(x) // size * size].double().unflatten(0, (-1, size))
    return rows.square().mean(1, keepdim=True).add(1e-8).log(), size
