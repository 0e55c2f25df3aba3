"""What the world's judges share: loading a committed network, stacking items, refusing silence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from foleypref.media.clip import held
from foleypref.media.streams import square
from foleypref.networks.resample import HANN, resample
from foleypref.scoring.scorers import ScoreItem, is_silent
from foleypref.workspace.records import Score
from foleypref.world import FPS, NUM_FRAMES, NUM_SAMPLES, SAMPLE_RATE
from foleypref.world.weights import file_hash, load_weights, weights_path

N = TypeVar("N", bound=nn.Module)

PICTURE = square(FPS, 48)
"""What the world's judges see: 25 frames a second, 48 pixels a side."""


def load_judge(name: str, make: Callable[[dict[str, Any]], N], device: str | torch.device) -> tuple[N, dict]:
    """A committed judge, frozen, and the metadata stored with it."""
    state, metadata = load_weights(weights_path(name))
    network = make(metadata)
    network.load_state_dict({k: v for k, v in state.items() if not k.startswith("extra.")})
    network.to(device).eval().requires_grad_(False)
    extra = {k.removeprefix("extra."): v for k, v in state.items() if k.startswith("extra.")}
    return network, {**metadata, **extra}


def judge_version(name: str) -> str:
    """The first characters of the weights' hash."""
    return file_hash(weights_path(name))[:8]


def waves(items: Sequence[ScoreItem]) -> Tensor:
    """Sounds stacked to (B, 64000): cut, or padded with silence."""
    rows = torch.zeros(len(items), NUM_SAMPLES)
    for row, item in zip(rows, items):
        wave = resample(torch.from_numpy(item.wave), item.sample_rate, SAMPLE_RATE, HANN)[:NUM_SAMPLES]
        row[: len(wave)] = wave
    return rows


def pictures(items: Sequence[ScoreItem]) -> Tensor:
    """Frames stacked to (B, 100, H, W, 3) uint8; a shorter clip holds its last frame."""
    return torch.from_numpy(np.stack([held(item.frames[PICTURE.key], NUM_FRAMES) for item in items]))


def judge_each(
    items: Sequence[ScoreItem],
    scorer: str,
    version: str,
    dimension: str,
    needs: frozenset[str],
    values: Callable[[list[ScoreItem]], Sequence[float]],
) -> list[Score]:
    """Scores of one dimension in one batch; silence and missing inputs are unscored with a reason."""
    reasons = {item.candidate_id: unscored_reason(item, needs) for item in items}
    usable = [item for item in items if not reasons[item.candidate_id]]
    found = iter(values(usable)) if usable else iter(())
    return [
        Score.make(item.candidate_id, scorer, version, dimension, None, reason)
        if (reason := reasons[item.candidate_id])
        else Score.make(item.candidate_id, scorer, version, dimension, float(next(found)))
        for item in items
    ]


def unscored_reason(item: ScoreItem, needs: frozenset[str]) -> str:
    """Why an item cannot be judged, or ""."""
    if "audio" in needs and is_silent(item.wave):
        return "silent"
    if "video" in needs and not any(len(frames) for frames in item.frames.values()):
        return "no video"
    if "text" in needs and not item.prompt.strip():
        return "no caption"
    if "reference" in needs and (item.reference is None or is_silent(item.reference)):
        return "no reference sound"
    return ""
