"""The synthetic workspaces of `scale.py`: records as the stages leave them, random rows at true size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from foleypref.sample import SampleSettings
from foleypref.score import ScoreSettings
from foleypref.settings.parts import build
from foleypref.workspace.dimensions import Dimension, scorers_of
from foleypref.workspace.records import Candidate, Clip, Feature, Rating, Score
from foleypref.workspace.store import Workspace

DIMENSIONS = (
    "world_semantic/similarity",
    "world_text/similarity",
    "world_sync/desync_s",
    "world_tagger/inception",
)
NUM_CANDIDATES, BATCH, RATED = 5, 40, 400
TUNED, COMPARED = "tuned", 10  # the weights of a second system, which has a candidate of every tenth clip
LATENT, CONDITIONS = (100, 32), {"scene": (9, 64), "motion": (100, 64), "text": (64,)}
SAMPLED = SampleSettings(num_candidates=NUM_CANDIDATES, num_steps=10, guidance_scale=2.0)
SCORED = ScoreSettings(scorers=scorers_of(DIMENSIONS), optional_scorers=(), ground_truth=False)


def make(root: Path, num_clips: int) -> None:
    """Make a workspace as `score` leaves it, with ratings of some candidates."""
    workspace = Workspace(root)
    clips = [_clip(i) for i in range(num_clips)]
    rng, model = np.random.default_rng(0), build("models", "world")
    weights, key = model.fingerprint, model.feature_key  # type: ignore[attr-defined]
    versions = {d: build("scorers", Dimension.parse(d).scorer).load().version for d in DIMENSIONS}  # type: ignore[attr-defined]
    for begin in range(0, num_clips, 16):
        part = clips[begin : begin + 16]
        ids = [Feature.make_id(clip.clip_id, key) for clip in part]
        rows = {name: torch.randn(len(part), *shape).half() for name, shape in CONDITIONS.items()}
        shard = workspace.write_rows("features", ids, rows)
        found = [Feature(ids[k], clip.clip_id, key, shard, k) for k, clip in enumerate(part)]
        workspace.append([*part, *found])
    plan = [(clip, seed, weights) for clip in clips for seed in range(NUM_CANDIDATES)]
    rated = set(rng.permutation(len(plan))[:RATED].tolist())
    plan += [(clip, 0, TUNED) for clip in clips[::COMPARED]]
    for begin in range(0, len(plan), BATCH):
        batch = plan[begin : begin + BATCH]
        made = _candidates(workspace, batch)
        values = rng.normal(size=(len(batch), len(DIMENSIONS)))
        scores = [
            _score(c, d, v, versions[d]) for c, row in zip(made, values) for d, v in zip(DIMENSIONS, row)
        ]
        labels = np.digitize(values[:, 0] - values[:, 2], [-0.7, 0.7])
        ratings = [
            Rating.make(c.candidate_id, "ann", int(labels[k]), "simulated")
            for k, c in enumerate(made)
            if begin + k in rated
        ]
        workspace.append(made)
        workspace.append([*scores, *ratings])


def _clip(index: int) -> Clip:
    clip_id = Clip.make_id(f"scale-{index}", 0.0, 4.0)
    meta = {"label": f"class {index % 30}", "event_times_s": [0.5, 1.5, 2.5]}
    return Clip(
        clip_id,
        f"videos/{index}.mp4",
        "align",
        f"thing {index % 30} moves",
        0.0,
        4.0,
        25.0,
        96,
        96,
        True,
        meta,
    )


def _candidates(workspace: Workspace, batch: list[tuple[Clip, int, str]]) -> list[Candidate]:
    s = SAMPLED
    ids = [
        Candidate.make_id(clip.clip_id, "world", weights, seed, s.solver, s.num_steps, s.guidance_scale)
        for clip, seed, weights in batch
    ]
    shard = workspace.write_rows("latents", ids, {"audio": torch.randn(len(batch), *LATENT).half()})
    return [
        Candidate(
            ids[k], clip.clip_id, "world", weights, seed, s.solver, s.num_steps, s.guidance_scale, shard, k
        )
        for k, (clip, seed, weights) in enumerate(batch)
    ]


def _score(candidate: Candidate, dimension: str, value: float, version: str) -> Score:
    parsed = Dimension.parse(dimension)
    return Score.make(candidate.candidate_id, parsed.scorer, version, parsed.name, float(value))


def stack_latents(workspace: Workspace, path: Path) -> None:
    """Write all latents as one array in the order of ids, to compare with a memory map."""
    candidates = workspace.read(Candidate)
    out = np.lib.format.open_memmap(path, "w+", np.float16, (len(candidates), *LATENT))
    for begin in range(0, len(candidates), 1000):
        part = candidates[begin : begin + 1000]
        out[begin : begin + len(part)] = workspace.rows(part)["audio"].numpy()
    out.flush()
