"""Helpers of the judges of sound and picture: reasons for unscored items, and one embedding per clip."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from torch import Tensor

from foleypref.scoring.scorers import ScoreItem, is_silent

CheckLength = Callable[[int, int, int, float], None]
"""(frames, samples, Hz, evaluated seconds); raises ValueError for what is too short."""


def why_unseen(item: ScoreItem, key: str, check_length: CheckLength | None = None) -> str:
    """Return why a sound cannot be compared with the frames of stream `key`, or ""."""
    frames = item.frames.get(key)
    if is_silent(item.wave):
        return "silent"
    if frames is None or len(frames) == 0:
        return "no picture"
    try:
        if check_length is not None:
            check_length(len(frames), item.sound.shape[-1], item.sample_rate, item.evaluated_s)
    except ValueError as error:
        return str(error)
    return ""


def once_per_clip(item: ScoreItem, seen: dict[str, Tensor], look: Callable[[], Tensor]) -> Tensor:
    """Return `look()`, the embedding of the item's picture, from the cache `seen` if it is there.

    The key holds the clip, the evaluated length and a checksum of some frames, because `seen` may outlive a
    batch. The entry used last moves to the end of `seen`.
    """
    checksums = [
        (stream, frames.shape, zlib.crc32(frames[:: max(1, len(frames) // 8)].tobytes()))
        for stream, frames in sorted(item.frames.items())
    ]
    key = f"{item.clip_id or item.candidate_id} {item.evaluated_s} {checksums}"
    seen[key] = seen.pop(key) if key in seen else look()
    return seen[key]


def forget_all_but_last(seen: dict[str, Tensor]) -> None:
    """Drop all entries but the last, whose clip may have more candidates in the next batch."""
    for name in list(seen)[:-1]:
        del seen[name]
