"""A workspace at the end of the loop with made-up numbers: clips to scores, embeddings, a run, pairs.

The tuned system is better by known amounts, one clip lacks a tuned candidate and one a score, so that counts
can be checked. No model is needed: `fake_waves` stands for decoding.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch

from foleypref.media.mux import write_video
from foleypref.workspace.dimensions import Dimension
from foleypref.workspace.records import GROUND_TRUTH, Candidate, Clip, Feature, Pair, Record, Score
from foleypref.workspace.store import Workspace

SAMPLE_RATE = 8000
SECONDS = 1.0
SYSTEMS = {"base": ("weights-base",), "tuned": ("weights-tuned-0", "weights-tuned-1")}
REWARD = (
    "world_semantic/similarity",
    "world_text/similarity",
    "world_sync/desync_s",
    "world_tagger/inception",
)
HOSTILE = "<script>alert('1')</script> & \"quotes\" </script>"
SCORERS = {
    "world_semantic/similarity": (0.3, 0.10),  # mean of the base, what tuning adds
    "world_text/similarity": (0.2, 0.05),
    "world_sync/desync_s": (0.6, -0.2),
    "world_tagger/inception": (1.0, 0.3),
    "oracle_onset/onset_f1": (0.4, 0.1),
    "oracle_onset/onset_error_s": (0.2, -0.05),
    "oracle_class/class_correct": (0.5, 0.2),
    "oracle_envelope/level_correlation": (0.5, 0.1),
    "oracle_noise/noise_floor_db": (-40.0, -6.0),
}
GAIN = {"base": 0.0, "weights-base": 0.0, "weights-tuned-0": 1.0, "weights-tuned-1": 0.8, "": 2.0}


def fill(workspace: Workspace, num_clips: int = 24, guidance_scales: Sequence[float] = (4.5,)) -> list[Clip]:
    """Fill an empty workspace; returns its clips in the order of their ids."""
    clips = _clips(workspace, num_clips)
    candidates = _candidates(clips, guidance_scales)
    lacking = clips[-1].clip_id
    candidates = [c for c in candidates if not (c.clip_id == lacking and c.weights == "weights-tuned-1")]
    workspace.append([*clips, *_features(workspace, candidates), *_scores(candidates, clips), *candidates])
    _write_run(workspace)
    _write_pairs(workspace, clips, candidates)
    return clips


def fake_waves(workspace: Workspace) -> object:
    """A stand-in for decoding: a tone a candidate, with a click at each event."""

    def waves(candidate_ids: Sequence[str]) -> dict[str, tuple[np.ndarray, int]]:
        t = np.arange(int(SAMPLE_RATE * SECONDS)) / SAMPLE_RATE
        found = {}
        for candidate_id in candidate_ids:
            pitch = 200 + int(candidate_id[:4], 16) % 800
            wave = 0.2 * np.sin(2 * np.pi * pitch * t)
            wave[int(0.3 * SAMPLE_RATE) :: SAMPLE_RATE // 3] += 0.7
            found[candidate_id] = (wave.astype(np.float32), SAMPLE_RATE)
        return found

    return waves


def _clips(workspace: Workspace, num_clips: int) -> list[Clip]:
    frames = np.zeros((12, 48, 64, 3), np.uint8)
    for i, frame in enumerate(frames):
        frame[10:30, 4 * i : 4 * i + 12] = (230, 120, 40)
    write_video(workspace.root / "videos" / "clip.mp4", frames, 12)
    labels = ("drum", "bell", "door")
    clips = [
        Clip(
            Clip.make_id(f"content-{i}", 0.0, SECONDS),
            "videos/clip.mp4",
            "test",
            HOSTILE if i % 3 == 0 else f"A {labels[i % 3]} is struck, take {i}",
            0.0,
            SECONDS,
            12.0,
            64,
            48,
            True,
            {"label": labels[i % 3], "event_times_s": [0.3, 0.63]},
        )
        for i in range(num_clips)
    ]
    return sorted(clips, key=lambda clip: clip.clip_id)


def _candidates(clips: list[Clip], guidance_scales: Sequence[float]) -> list[Candidate]:
    made = []
    for clip in clips:
        truth_id = Candidate.make_id(clip.clip_id, GROUND_TRUTH, "", 0, "", 0, 0.0)
        made.append(Candidate(truth_id, clip.clip_id, GROUND_TRUTH, "", 0, "", 0, 0.0, "", -1))
        for weights in (w for ws in SYSTEMS.values() for w in ws):
            for scale in guidance_scales:
                candidate_id = Candidate.make_id(clip.clip_id, "world", weights, 0, "euler", 25, scale)
                made.append(
                    Candidate(candidate_id, clip.clip_id, "world", weights, 0, "euler", 25, scale, "x", 0)
                )
    return made


def _scores(candidates: list[Candidate], clips: list[Clip]) -> list[Score]:
    scores = []
    for c in candidates:
        for key, (mean, gain) in SCORERS.items():
            of = Dimension.parse(key)
            seed = int(c.clip_id[:6], 16) + len(key)
            noise = (
                np.random.default_rng(seed).normal()
                + 0.5 * np.random.default_rng(int(c.candidate_id[:8], 16)).normal()
            )
            value: float | None = mean + gain * GAIN[c.weights] + abs(gain) * noise
            if (
                c.clip_id == clips[1].clip_id
                and key == "oracle_onset/onset_f1"
                and c.weights == "weights-base"
            ):
                value = None
            scores.append(Score.make(c.candidate_id, of.scorer, "1", of.name, value, "no events"))
    return scores


def _features(workspace: Workspace, candidates: list[Candidate]) -> list[Record]:
    rows = {"features": [], "logits": []}
    for c in candidates:
        shared = np.random.default_rng(int(c.clip_id[:8], 16)).normal(size=(2, 12))
        own = np.random.default_rng(int(c.candidate_id[:8], 16)).normal(size=(2, 12))
        mix = shared + own * (1.0 - 0.4 * GAIN[c.weights])
        rows["features"].append(torch.tensor(mix[0, :8], dtype=torch.float32))
        rows["logits"].append(torch.tensor(3 * mix[1], dtype=torch.float32))
    ids = [Feature.make_id(c.candidate_id, "world_tagger@1") for c in candidates]
    shard = workspace.write_rows("embeddings", ids, {key: torch.stack(value) for key, value in rows.items()})
    return [Feature(ids[i], c.candidate_id, "world_tagger@1", shard, i) for i, c in enumerate(candidates)]


def _write_run(workspace: Workspace) -> None:
    folder = workspace.run_folder("tuned-0")
    folder.mkdir(parents=True)
    lines = []
    for step in range(10, 1010, 10):
        margin = step / 1000
        line = {
            "step": step, "loss": float(np.log1p(np.exp(-margin))), "rewards/margins": margin,
            "rewards/accuracies": 0.5 + 0.4 * margin, "flow/winner_delta": -0.01 * margin,
            "flow/loser_delta": 0.02 * margin, "time/steps_per_s": 3.0,
        }  # fmt: skip
        if step % 100 == 0:
            line["eval/loss"] = line["loss"] + 0.02
        lines.append(json.dumps(line))
    (folder / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 1020, "lo']))
    (folder / "recipe.yaml").write_text("name: demo  # <b>not bold</b>\nbeta: 600\n")
    (folder / "settings.json").write_text(json.dumps({"learning_rate": 5e-6, "max_steps": 1000}))


def _write_pairs(workspace: Workspace, clips: list[Clip], candidates: list[Candidate]) -> None:
    pairs = [
        Pair(f"pair-{i}", clip.clip_id, clip.prompt, "a", "b", 0.8, 0.3, i / len(clips), "auto")
        for i, clip in enumerate(clips)
    ]
    workspace.append(pairs)
    report = {
        "audioscore": "1", "num_clips": len(clips), "num_candidates": len(candidates), "num_unscored": 0,
        "settled": 0, "pairs": {"auto": len(clips)}, "others": {}, "reasons": {"all alike": 2},
        "histogram_edges": [-1.0, -0.5, 0.0, 0.5, 1.0], "histogram": [0, 0, 12, 12],
        "share_above": {"0.7": 0.3},
    }  # fmt: skip
    (workspace.root / "pairs.json").write_text(json.dumps(report))
    folder = workspace.root / "audioscore"
    folder.mkdir()
    bins = [
        {"low": i / 5, "high": (i + 1) / 5, "n": 10 * i, "confidence": (i + 0.5) / 5, "accuracy": i / 5}
        for i in range(5)
    ]
    bins[0] |= {"n": 0, "confidence": None, "accuracy": None}
    fitted = {
        "name": "audioscore", "inputs": "0", "version": "1", "settings": {},
        "dimensions": {"world_semantic/similarity": "1", "world_sync/desync_s": "1"},
        "coverage": {"world_semantic/similarity": 1.0, "world_sync/desync_s": 0.9}, "left_out": {},
        "sources": {"human": 600}, "label_shares": {"bad": 0.2, "medium": 0.4, "good": 0.4},
        "log_likelihood": -0.7, "pair_agreement": 0.8, "num_pairs": 90,
        "num_candidates": 120, "num_clips": 24, "num_ratings": 600, "num_raters": 5,
        "alpha": 0.6, "accuracy": 0.71, "majority_accuracy": 0.4, "macro_f1": 0.68, "ece": 0.05,
        "reliability": bins, "confusion": [[20, 5, 1], [6, 30, 8], [1, 7, 42]],
        "contributions": {
            "world_semantic/similarity": {"accuracy_drop": 0.12, "log_likelihood_drop": 0.2},
            "world_sync/desync_s": {"accuracy_drop": 0.05, "log_likelihood_drop": 0.08},
        },
    }  # fmt: skip
    (folder / "audioscore.json").write_text(json.dumps(fitted))
