"""Scenes of the world as score items and media, made in memory."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from foleypref.scoring.scorers import ScoreItem
from foleypref.scoring.scorers._world import PICTURE
from foleypref.world import SAMPLE_RATE
from foleypref.world.drawing import render_frames
from foleypref.world.scenes import sample_scene
from foleypref.world.sound import synthesise

LABELS = ("drum", "dog", "fire", "low_voice", "high_voice", "clap", "wine_glass", "engine")


@cache
def world_item(label: str, index: int = 0) -> ScoreItem:
    """A clean clip of one class with its own sound, frames at 48 pixels and the truth."""
    scene = sample_scene("judge", 7, index, labels=(label,))
    sound = synthesise(scene)
    frames = render_frames(scene)
    small = frames.reshape(len(frames), 48, 2, 48, 2, 3).mean((2, 4)).round().astype(np.uint8)
    meta = {
        "labels": list(scene.labels),
        "event_times_s": list(sound.event_times_s),
        "level_db": list(sound.level_db),
        "noise_floor_db": sound.noise_floor_db,
    }
    return ScoreItem(
        f"{label}-{index}", sound.wave, SAMPLE_RATE, scene.caption, {PICTURE.key: small}, sound.wave,
        SAMPLE_RATE, meta, clip_id=f"{label}-{index}",
    )  # fmt: skip


def with_wave(item: ScoreItem, wave: np.ndarray, name: str = "other") -> ScoreItem:
    """The same clip with another soundtrack."""
    return replace(item, candidate_id=f"{item.candidate_id}-{name}", wave=wave.astype(np.float32))


def world_items() -> list[ScoreItem]:
    """One clip of each of a few classes of every family."""
    return [world_item(label) for label in LABELS]
