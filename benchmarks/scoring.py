"""The cost of each scorer: items per second and peak memory, one process per scorer, on real clips.

    python benchmarks/scorer_weights.py weights
    FOLEYPREF_WEIGHTS=weights python benchmarks/scoring.py VIDEO.mp4 … --candidates 5

A clip is scored with `--candidates` soundtracks: its own, and others of the same length. "first" is a clip
with one candidate, "more" each further one: those that look at the picture do so once per clip. `--clock cpu`
counts the processor's seconds, where a machine is shared.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import numpy as np

from foleypref.media.clip import read_channels
from foleypref.media.streams import read_streams
from foleypref.scoring.scorer_sets import SCORER_SETS
from foleypref.scoring.scorers import ScoreItem, Scorer, Unscored, build_scorer

DEFAULT = (
    *dict.fromkeys((*SCORER_SETS["v2a_dpo"], *SCORER_SETS["av_benchmark"])),
    "aesthetics",
    "av_align",
    "onset",
)


def items_of(video: Path, scorer: Scorer, candidates: int, seconds: float) -> list[ScoreItem]:
    """Return items of the clip's own sound, then of the same sound mixed with noise."""
    frames = read_streams(video, scorer.streams, duration_s=seconds)
    sound, rate = read_channels(video, duration_s=seconds, pad=True)
    reference = sound.mean(0)
    generator = np.random.default_rng(0)
    found = []
    for index in range(candidates):
        wave = reference + 0.02 * index * generator.standard_normal(len(reference)).astype(np.float32)
        found.append(
            ScoreItem(
                f"{video.stem}-{index}", wave, rate, "a person speaks", frames, reference, rate,
                seconds=seconds, clip_id=video.stem,
            )
        )  # fmt: skip
    return found


def run_child(name: str, videos: list[Path], candidates: int, seconds: float, clock: str) -> None:
    """Measure one scorer and print JSON."""
    import torch

    now = time.process_time if clock == "cpu" else time.perf_counter
    scorer = build_scorer(name)
    begin = now()
    scorer = scorer.load()
    loading = now() - begin
    first = more = 0.0
    unscored: dict[str, int] = {}
    with torch.inference_mode():
        for video in videos:
            items = items_of(video, scorer, candidates, seconds)
            alone = dataclasses.replace(
                items[0], clip_id="alone"
            )  # a name of its own: the last is remembered
            begin = now()
            scorer.judge([alone])
            first += (one := now() - begin)
            begin = now()
            for value in (v for column in scorer.judge(items).values.values() for v in column):
                if isinstance(value, Unscored):
                    unscored[value.reason] = unscored.get(value.reason, 0) + 1
            more += (now() - begin - one) / max(1, candidates - 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    n = len(videos)
    print(json.dumps({"load": loading, "first": first / n, "more": more / n, "peak": peak, "un": unscored}))


def main() -> None:
    """Measure all scorers and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--scorers", nargs="+", default=list(DEFAULT))
    parser.add_argument("--candidates", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        run_child(args.child, args.videos, args.candidates, args.seconds, args.clock)
        return
    print(f"{len(args.videos)} clips of {args.seconds:g} s, {args.candidates} candidates each")
    print(f"{'scorer':14}{'load s':>8}{'first s':>10}{'more s':>10}{'items/s':>10}{'peak GiB':>10}  unscored")
    for name in args.scorers:
        found = _spawn(name, args)
        rate = args.candidates / (found["first"] + (args.candidates - 1) * max(found["more"], 1e-9))
        why = "; ".join(f"{n}: {reason}" for reason, n in found["un"].items())
        print(
            f"{name:14}{found['load']:>8.1f}{found['first']:>10.2f}{found['more']:>10.2f}{rate:>10.2f}"
            f"{found['peak']:>10.2f}  {why}",
            flush=True,
        )


def _spawn(name: str, args: argparse.Namespace) -> dict[str, Any]:
    videos = [str(video) for video in args.videos]
    options = ["--child", name, "--candidates", str(args.candidates), "--seconds", str(args.seconds)]
    options += ["--clock", args.clock]
    done = subprocess.run(
        [sys.executable, __file__, *videos, *options], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    return cast(dict[str, Any], json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
