"""The report's gallery: which clips to show, and what stands beside each.

Clips are ranked by how much the compared system changed them against the base: over the table's per-clip
dimensions, the mean of the change in units of that dimension's spread between clips, signed so that up is
good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foleytune.evaluation import Column, Evaluation
from foleytune.evaluation_table import number, signed
from foleytune.records import GROUND_TRUTH, Clip
from foleytune.report_media import link, sound_text
from foleytune.report_page import colours


@dataclass(frozen=True)
class Compared:
    """Systems side by side on their common clips, first training seed and first noise seed of each."""

    evaluation: Evaluation
    clips: tuple[Clip, ...]
    tracks: dict[str, dict[str, str]]  # system -> clip_id -> candidate_id, the truth first
    scores: dict[str, dict[str, np.ndarray]]  # system -> "scorer/dimension" -> (n,) in the order of clips

    @property
    def columns(self) -> list[Column]:
        """The columns that have a value for each clip."""
        return [c for c in self.evaluation.columns if c.dimension is not None]

    def matrix(self, system: str) -> np.ndarray:
        """(n, K): a system's scores in the order of `columns`."""
        columns = [self.scores[system][c.dimension or ""] for c in self.columns]
        return np.column_stack(columns) if columns else np.zeros((len(self.clips), 0))


@dataclass(frozen=True)
class Shown:
    """One clip of the gallery and why it is there: "improved", "worse" or "random"."""

    clip: Clip
    reason: str
    change: float  # in spreads; NaN if nothing was scored


@dataclass(frozen=True)
class Files:
    """The gallery's media as they are on disk."""

    media: Path
    audio_format: str
    inline: bool  # into the page
    unusable: Mapping[str, str]  # clip_id -> why it has no picture
    lost: set[str]  # candidate_ids without sound
    pictured: set[str]  # candidate_ids with a picture of their own, as a joint model's have

    def video(self, name: str) -> str:
        """What a page loads the picture of a clip or of a candidate from."""
        return link(self.media / f"{name}.mp4", "video/mp4", self.inline)


def changes(base: np.ndarray, tuned: np.ndarray, higher_is_better: Sequence[bool]) -> np.ndarray:
    """Scores (n, K) of two systems -> (n,) mean signed change in units of each dimension's spread."""
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
    """A third each of the largest improvements, the worst regressions and random ones, class by class."""
    known = [i for i in np.argsort(-change, kind="stable") if np.isfinite(change[i])]
    third = num_clips // 3
    best = [i for i in known if change[i] > 0][:third]
    worst = [i for i in reversed(known) if change[i] < 0 and i not in best][:third]
    order = np.random.default_rng(seed).permutation(len(clips))
    rest = _by_class(clips, [int(i) for i in order if i not in best and i not in worst])
    rest = rest[: num_clips - len(best) - len(worst)]
    groups = (("improved", best), ("worse", worst), ("random", rest))
    return [Shown(clips[i], reason, float(change[i])) for reason, group in groups for i in group]


def _by_class(clips: Sequence[Clip], order: Sequence[int]) -> list[int]:
    """One of each class in turn, so that a common class does not fill the gallery."""
    turn: dict[str, int] = {}
    places: list[tuple[int, int, int]] = []
    for i in order:
        label = str(clips[i].meta.get("label", ""))
        places.append((turn.get(label, 0), len(places), i))
        turn[label] = turn.get(label, 0) + 1
    return [i for _, _, i in sorted(places)]


def items(compared: Compared, shown: Sequence[Shown], files: Files) -> list[dict[str, Any]]:
    """The gallery for the template."""
    found = []
    place = {clip.clip_id: i for i, clip in enumerate(compared.clips)}
    for s in shown:
        clip_id = s.clip.clip_id
        sounds = [
            _sound(compared, system, ids[clip_id], place[clip_id], files)
            for system, ids in compared.tracks.items()
            if clip_id in ids and ids[clip_id] not in files.lost
        ]
        found.append(
            {
                "id": clip_id,
                "prompt": s.clip.prompt,
                "class": str(s.clip.meta.get("label", "")),
                "reason": s.reason,
                "change": signed(s.change),
                "width": s.clip.width,
                "height": s.clip.height,
                "video": "" if clip_id in files.unusable else files.video(clip_id),
                "wrong": files.unusable.get(clip_id, ""),
                "sounds": sounds,
                "player": {"sounds": [{"id": sound["id"], "script": sound["script"]} for sound in sounds]},
            }
        )
    return found


def _sound(
    compared: Compared,
    system: str,
    candidate_id: str,
    place: int,
    files: Files,
) -> dict[str, Any]:
    values = compared.scores[system]
    script = f"{candidate_id}.{files.audio_format}.js"
    return {
        "id": candidate_id,
        "name": "ground truth" if system == GROUND_TRUTH else system,
        "colour": colours(compared.evaluation)[system],
        "scores": [
            (c.label, number(float(values[c.dimension or ""][place]), c.unit)) for c in compared.columns
        ],
        "script": f"media/{script}",
        "data": sound_text(files.media, candidate_id, files.audio_format) if files.inline else "",
        "picture": link(files.media / f"{candidate_id}.webp", "image/webp", files.inline),
        "video": files.video(candidate_id) if candidate_id in files.pictured else "",
    }
