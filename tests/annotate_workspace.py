"""A workspace that can be annotated without a model: tiny videos, made-up candidates, a tone for each.

`python -m tests.annotate_workspace ROOT [flags of foleypref annotate]` makes one and serves it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from foleypref.annotate.assignments import make_assignments
from foleypref.annotate.campaign import Campaign
from foleypref.annotate.event_log import EventLog
from foleypref.annotate.events import Event, parse_event
from foleypref.annotate.media_store import MediaStore, Soundtrack
from foleypref.annotate.settings import AnnotateSettings
from foleypref.media.mux import write_video
from foleypref.workspace.records import GROUND_TRUTH, Candidate, Clip
from foleypref.workspace.store import Workspace

SAMPLE_RATE, SECONDS = 8000, 1.0
HOSTILE = "<script>alert('1')</script> & \"quotes\" \u2028 </script><img src=x onerror=alert(2)>"


def fill(root: Path, num_clips: int = 6, num_candidates: int = 3, prompt: str = "") -> Workspace:
    """Clips of split align with candidates whose shards need not be there, and one ground truth each."""
    workspace = Workspace(root)
    _write_video(workspace.root / "videos" / "clip.mp4")
    clips = [
        Clip(
            Clip.make_id(f"annotated-{i}", 0.0, SECONDS), "videos/clip.mp4", "align", prompt or f"sound {i}",
            0.0, SECONDS, 12.0, 64, 48, True, {"event_times_s": [0.25, 0.5]},
        )
        for i in range(num_clips)
    ]  # fmt: skip
    candidates = []
    for clip in clips:
        truth_id = Candidate.make_id(clip.clip_id, GROUND_TRUTH, "", 0, "", 0, 0.0)
        candidates.append(Candidate(truth_id, clip.clip_id, GROUND_TRUTH, "", 0, "", 0, 0.0, "", -1))
        for seed in range(num_candidates):
            candidate_id = Candidate.make_id(clip.clip_id, "world", "base", seed, "euler", 25, 4.5)
            candidates.append(
                Candidate(
                    candidate_id, clip.clip_id, "world", "base", seed, "euler", 25, 4.5, "latents/none", seed
                )
            )
    workspace.append([*clips, *candidates])
    return workspace


@cache
def _frames() -> np.ndarray:
    frames = np.zeros((12, 48, 64, 3), np.uint8)
    for i, frame in enumerate(frames):
        frame[10:30, 4 * i : 4 * i + 12] = (230, 120, 40)
    return frames


def _write_video(path: Path) -> None:
    if not path.exists():
        write_video(path, _frames(), 12)


def fake_waves(
    broken: Sequence[str] = (),
) -> Callable[[Sequence[str]], Mapping[str, tuple[np.ndarray, int]]]:
    """A stand-in for decoding: a pulsed tone whose pitch and level are functions of the candidate."""

    def waves(candidate_ids: Sequence[str]) -> dict[str, tuple[np.ndarray, int]]:
        t = np.arange(int(SAMPLE_RATE * SECONDS)) / SAMPLE_RATE
        by_id = {}
        for candidate_id in set(candidate_ids) - set(broken):
            number = int(candidate_id[:6], 16)
            pulse = np.exp(-6 * (t % 0.25))
            wave = (0.02 + 0.9 * (number % 97) / 97) * np.sin(2 * np.pi * (150 + number % 900) * t) * pulse
            by_id[candidate_id] = (wave.astype(np.float32), SAMPLE_RATE)
        return by_id

    return waves


def make_campaign(workspace: Workspace, raters: Sequence[str] = ("ann", "bob"), **settings: Any) -> Campaign:
    """Return a campaign on the workspace's log; the raters' tokens are thrown away."""
    chosen = AnnotateSettings(**{"repeats": 0.0, "degraded": 0.0, **settings})
    log = EventLog.of(workspace.root, chosen.database)
    media, assignments = MediaStore(workspace, fake_waves()), make_assignments(workspace, chosen)
    campaign = Campaign(chosen, log, media, assignments)
    for rater in raters:
        if rater not in campaign.tokens.names():
            campaign.tokens.new_token(rater)
    return campaign


def without_media(campaign: Campaign) -> Campaign:
    """The campaign without anything on disk to hear: for tests of many tasks."""
    campaign.media.has = lambda clip, tracks: True  # type: ignore[method-assign]
    campaign.media.soundtrack = lambda *track: Soundtrack(Path("x"), SECONDS, [])  # type: ignore
    return campaign


def event(kind: str, client_id: str = "", **fields: Any) -> Event:
    """An event as a browser sends it."""
    import json

    content = {"kind": kind, "client_id": client_id or str(uuid4()), "client_time_ms": 1, **fields}
    return parse_event(json.dumps(content).encode())


def all_heard(task: Mapping[str, Any]) -> dict[str, float]:
    """Every soundtrack of a task heard to its end."""
    return {track["label"]: track["seconds"] for track in task["tracks"]}


def rate_all(
    campaign: Campaign, rater: str, task: Mapping[str, Any], value: int | Callable[[str], int] = 2
) -> None:
    """Rate every soundtrack of a task; `value` may be a function of the letter."""
    for track in task["tracks"]:
        label = track["label"]
        rating = value(label) if callable(value) else value
        one = event(
            "rate", task_id=task["task_id"], label=label, value=rating, seconds=3.0, heard=all_heard(task)
        )
        campaign.post(rater, one)


def main(args: list[str]) -> None:
    """Serve a made-up workspace, made if it is not there."""
    from foleypref.annotate.serve import annotate
    from foleypref.settings.flags import parse
    from foleypref.settings.parts import Settings

    root = Path(args.pop(0))
    workspace = Workspace(root) if (root / "workspace.json").exists() else fill(root, 12, 5)
    annotate(
        workspace,
        parse(Settings, args, "annotate_workspace ROOT", settings=AnnotateSettings()).settings,
        fake_waves(),
    )


if __name__ == "__main__":
    main(sys.argv[1:])
