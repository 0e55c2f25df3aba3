"""Workspaces of made-up clips, candidates and scores, and judges to go with them; no sound, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from foleypref.scoring.scorers import Judgement, ScoreItem, Scorer, Unscored, is_silent
from foleypref.workspace.dimensions import Dimension
from foleypref.workspace.records import Candidate, Clip, Rating, Score
from foleypref.workspace.store import Workspace

JUDGES = ("world_semantic/similarity", "world_text/similarity", "world_sync/desync_s")


def make_clip(index: int, split: str = "align", **meta: object) -> Clip:
    return Clip(
        f"clip{index:05d}", f"{index}.mp4", split, f"sound {index}", 0.0, 4.0, 25.0, 96, 96, True, meta
    )


def make_candidate(clip: Clip, seed: int, model: str = "world", weights: str = "base") -> Candidate:
    candidate_id = Candidate.make_id(clip.clip_id, model, weights, seed, "euler", 25, 4.5)
    return Candidate(candidate_id, clip.clip_id, model, weights, seed, "euler", 25, 4.5, "latents/none", seed)


def fill(
    root: Path, num_clips: int, values: Mapping[str, np.ndarray], num_candidates: int = 5, **clip: object
) -> tuple[Workspace, list[Candidate]]:
    """`num_clips` clips with candidates; `values[dimension]` (num_clips · num_candidates,), NaN unscored."""
    workspace = Workspace(root)
    clips = [make_clip(i, **clip) for i in range(num_clips)]  # type: ignore[arg-type]
    candidates = [make_candidate(c, seed) for c in clips for seed in range(num_candidates)]
    workspace.append([*clips, *candidates])
    scores = []
    for name, column in values.items():
        dimension = Dimension.parse(name)
        scores += [
            Score.make(c.candidate_id, dimension.scorer, "1", dimension.name, float(v))
            for c, v in zip(candidates, column)
        ]
    workspace.append(scores)
    return workspace, candidates


def rule_values(num: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Judge values (num,): two that matter to `rule_labels` and one that is noise."""
    rng = np.random.default_rng(seed)
    return {
        JUDGES[0]: rng.uniform(0, 0.5, num),
        JUDGES[1]: rng.normal(0.2, 0.1, num),
        JUDGES[2]: rng.uniform(0, 0.8, num),
    }


def rule_labels(values: Mapping[str, np.ndarray]) -> np.ndarray:
    """The known rule: similarity up, desync down, cut at two absolute places."""
    quality = 2 * values[JUDGES[0]] - values[JUDGES[2]]
    return (quality > -0.1).astype(int) + (quality > 0.35).astype(int)


def rate(
    workspace: Workspace,
    candidates: Sequence[Candidate],
    labels: np.ndarray,
    raters: Sequence[str] = ("ann",),
) -> None:
    """Everybody gives everything the same labels."""
    ratings = [
        Rating.make(c.candidate_id, rater, int(label), "human")
        for rater in raters
        for c, label in zip(candidates, labels)
    ]
    workspace.append(ratings)


class Loudness(Scorer):
    """A judge of sound alone: its level."""

    needs: ClassVar[frozenset[str]] = frozenset({"audio"})
    dimensions: ClassVar[tuple[str, ...]] = ("rms",)
    higher_is_better: ClassVar[dict[str, bool]] = {"rms": True}
    version: ClassVar[str] = "1"

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        silent = Unscored("silent")
        return Judgement(
            {"rms": [silent if is_silent(i.wave) else float(np.sqrt(np.mean(i.wave**2))) for i in items]}, {}
        )


class Cheat(Loudness):
    """Loudness that asks for the truth as well."""

    needs: ClassVar[frozenset[str]] = frozenset({"audio", "truth"})
