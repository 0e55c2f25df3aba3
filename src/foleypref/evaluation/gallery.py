"""The report's gallery: which clips are shown, and their data.

Clips are ranked by how much the compared system changed them against the base: the mean over the table's
per-clip dimensions of the change, in units of that dimension's spread between clips, positive if better.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foleypref.evaluation.gallery_media import inlined, sound_text
from foleypref.evaluation.page import colours
from foleypref.evaluation.result import Column, Evaluation
from foleypref.evaluation.table import number, shown_name, signed
from foleypref.workspace.records import Clip


@dataclass(frozen=True)
class Compared:
    """Systems side by side on their common clips: the first training seed and noise seed of each."""

    evaluation: Evaluation
    clips: tuple[Clip, ...]
    tracks: dict[str, dict[str, str]]  # system -> clip_id -> candidate_id, the truth first
    scores: dict[str, dict[str, np.ndarray]]  # system -> "scorer/dimension" -> (n,) in the order of clips

    @property
    def columns(self) -> list[Column]:
        """The columns that have a value for each clip."""
        return [c for c in self.evaluation.columns if c.dimension is not None]

    def matrix(self, system: str) -> np.ndarray:
        """Return a system's scores (n, K) in the order of `columns`."""
        columns = [self.scores[system][c.dimension or ""] for c in self.columns]
        return np.column_stack(columns) if columns else np.zeros((len(self.clips), 0))


@dataclass(frozen=True)
class Shown:
    """One clip of the gallery and the reason for it: "improved", "worse" or "random"."""

    clip: Clip
    reason: str
    change: float  # in spreads; NaN if nothing was scored


@dataclass(frozen=True)
class Files:
    """The gallery's media as they are on disk."""

    media: Path
    audio_format: str
    inline: bool  # in the page itself
    unusable: Mapping[str, str]  # clip_id -> why it has no picture
    lost: set[str]  # candidate_ids without sound
    pictured: set[str]  # candidate_ids whose picture was generated too, by a joint model


def changes(base: np.ndarray, tuned: np.ndarray, higher_is_better: Sequence[bool]) -> np.ndarray:
    """Return the mean signed change (n,) between scores (n, K), in units of each dimension's spread."""
    if not base.shape[1]:
        return np.full(len(base), np.nan)
    total, count = np.zeros(len(base)), np.zeros(len(base))
    for k, up in enumerate(higher_is_better):
        both = np.concatenate([base[:, k], tuned[:, k]])
        finite = both[np.isfinite(both)]
        spread = float(finite.std()) if finite.size else 0.0
        if spread > 0:
            change = (tuned[:, k] - base[:, k]) / spread * (1 if up else -1)
            good = np.isfinite(change)
            total[good] += change[good]
            count[good] += 1
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def choose(clips: Sequence[Clip], change: np.ndarray, num_clips: int, seed: int = 0) -> list[Shown]:
    """Choose a third each of largest improvements, worst regressions, and random clips of all classes."""
    known = [i for i in np.argsort(-change, kind="stable") if np.isfinite(change[i])]
    third = num_clips // 3
    best = [i for i in known if change[i] > 0][:third]
    worst = [i for i in reversed(known) if change[i] < 0][:third]
    taken = {*best, *worst}
    order = np.random.default_rng(seed).permutation(len(clips))
    rest = _by_class(clips, [int(i) for i in order if i not in taken])[: num_clips - len(best) - len(worst)]
    groups = (("improved", best), ("worse", worst), ("random", rest))
    return [Shown(clips[i], reason, float(change[i])) for reason, group in groups for i in group]


def _by_class(clips: Sequence[Clip], order: Sequence[int]) -> list[int]:
    """Order by taking one of each class in turn, so that a common class does not fill the gallery."""
    so_far, turn = Counter[str](), dict[int, int]()
    for i in order:
        label = str(clips[i].meta.get("label", ""))
        turn[i] = so_far[label]
        so_far[label] += 1
    return sorted(order, key=turn.__getitem__)


def gallery_data(compared: Compared, shown: Sequence[Shown], files: Files) -> dict[str, Any]:
    """Return the gallery as the page's script reads it: what all clips share, and then each clip.

    Media are named by ids, as in media/<id>.mp4; a clip carries their bytes only if they are inlined.
    """
    colour = colours(compared.evaluation)
    place = {clip.clip_id: i for i, clip in enumerate(compared.clips)}
    return {
        "format": files.audio_format,
        "systems": [{"name": shown_name(system), "colour": colour[system]} for system in compared.tracks],
        "columns": [column.label for column in compared.columns],
        "clips": [_clip(compared, s, place[s.clip.clip_id], files) for s in shown],
    }


def inline_sounds(data: dict[str, Any], files: Files) -> list[tuple[str, str]]:
    """Return (candidate_id, sound as base64) of all soundtracks if they are to be inlined."""
    if not files.inline:
        return []
    ids = [sound["id"] for clip in data["clips"] for sound in clip["sounds"]]
    return [(i, sound_text(files.media, i, files.audio_format)) for i in ids]


def _clip(compared: Compared, s: Shown, place: int, files: Files) -> dict[str, Any]:
    clip_id = s.clip.clip_id
    sounds = [
        _sound(compared, number, system, ids[clip_id], place, files)
        for number, (system, ids) in enumerate(compared.tracks.items())
        if clip_id in ids and ids[clip_id] not in files.lost
    ]
    entry: dict[str, Any] = {
        "id": clip_id,
        "prompt": s.clip.prompt,
        "class": str(s.clip.meta.get("label", "")),
        "reason": s.reason,
        "change": round(s.change, 4) if np.isfinite(s.change) else None,
        "said": signed(s.change),
        "size": [s.clip.width, s.clip.height],
        "wrong": files.unusable.get(clip_id, ""),
        "sounds": sounds,
    }
    if files.inline and not entry["wrong"]:
        entry["video"] = inlined(files.media / f"{clip_id}.mp4", "video/mp4")
    return entry


def _sound(
    compared: Compared, number_of_system: int, system: str, candidate_id: str, place: int, files: Files
) -> dict[str, Any]:
    values, own = compared.scores[system], candidate_id in files.pictured
    scores = [number(float(values[c.dimension or ""][place]), c.unit) for c in compared.columns]
    entry: dict[str, Any] = {"system": number_of_system, "id": candidate_id, "scores": scores}
    if own:
        entry["own"] = True
    if files.inline:
        entry["picture"] = inlined(files.media / f"{candidate_id}.webp", "image/webp")
        if own:
            entry["video"] = inlined(files.media / f"{candidate_id}.mp4", "video/mp4")
    return entry
