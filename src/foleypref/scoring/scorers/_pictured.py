"""What the judges of sound and picture share: why an item cannot be judged, and one look at a clip."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from torch import Tensor

from foleypref.scoring.scorers import ScoreItem, is_silent

CheckLength = Callable[[int, int, int, float], None]
"""(frames, samples, Hz, evaluated seconds); raises ValueError for what is too short."""


def why_unseen(item: ScoreItem, key: str, check_length: CheckLength | None = None) -> str:
    """Why a sound cannot be compared with the frames of stream `key`, or ""."""
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
    """What `look` makes of the item's picture; `seen` keeps it, the last one used at its end.

    Kept by clip, evaluated length and some of the frames, as `seen` may outlive a batch.
    """
    some = [
        (key, frames.shape, zlib.crc32(frames[:: max(1, len(frames) // 8)].tobytes()))
        for key, frames in sorted(item.frames.items())
    ]
    name = f"{item.clip_id or item.candidate_id} {item.evaluated_s} {some}"
    seen[name] = seen.pop(name) if name in seen else look()
    return seen[name]


def forget_all_but_last(seen: dict[str, Tensor]) -> None:
    """Forget all but the last: batches follow clips, and a clip's candidates may go on in the next one."""
    for name in list(seen)[:-1]:
        del seen[name]
