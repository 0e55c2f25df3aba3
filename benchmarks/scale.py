"""The stages that handle records, on synthetic workspaces of 500, 5,000 and 50,000 clips × 5 candidates.

    python benchmarks/scale.py --folder runs/scale                      # 10 GB of disk
    python benchmarks/scale.py --folder runs/scale --clips 500 5000

Records are as the stages leave them: a part for every batch, every row of latents and conditions at its true
size (the world model's, 6.4 and 14 kB), four dimensions scored. Each measurement is a process of its own that
has just started: seconds by the clock, CPU seconds and peak memory. "cold" comes after the files were dropped
from the page cache. A workspace that is there is measured again, not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
from accelerate import Accelerator

from foleytune.curricula import Curriculum
from foleytune.evaluate import EvaluateSettings, evaluate
from foleytune.fit import FitSettings, fit
from foleytune.metrics.mean import Mean
from foleytune.pair import PairSettings, pair
from foleytune.plugins import build
from foleytune.records import Candidate, Clip, Feature, Pair, Rating, Score
from foleytune.report import ReportSettings, report
from foleytune.sample import SampleSettings, SampleWork
from foleytune.score import ScoreSettings, ScoreWork
from foleytune.store import Workspace
from foleytune.train_context import make_context, split_data
from foleytune.train_data import split_pairs
from foleytune.train_settings import TrainSettings

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
SCORED = ScoreSettings(
    scorers=tuple(d.partition("/")[0] for d in DIMENSIONS), optional_scorers=(), ground_truth=False
)
ROWS = 16  # a training step's latents; an epoch has two of every clip


def make(root: Path, num_clips: int) -> None:
    """A workspace after score, with ratings of some candidates."""
    workspace = Workspace(root)
    clips = [_clip(i) for i in range(num_clips)]
    rng, model = np.random.default_rng(0), build("models", "world")
    weights, key = model.fingerprint, model.feature_key  # type: ignore[attr-defined]
    versions = {d: build("scorers", d.partition("/")[0]).load().version for d in DIMENSIONS}  # type: ignore[attr-defined]
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
    scorer, _, name = dimension.partition("/")
    return Score.make(candidate.candidate_id, scorer, version, name, float(value))


# -- what is measured, each in a process of its own -------------------------------------------------------


def measure_fit(workspace: Workspace) -> str:
    fit(workspace, FitSettings(dimensions=DIMENSIONS))
    return ""


def measure_pair(workspace: Workspace) -> str:
    return f"{sum(pair(workspace, PairSettings(weights=_weights())).pairs.values()):,} pairs"


def measure_sample_again(workspace: Workspace) -> str:
    """Everything is there: what it takes to find that out."""
    count = SampleWork(workspace, SAMPLED)((0, 1))
    assert count.done == 0, count
    return f"{count.skipped:,} skipped"


def measure_score_again(workspace: Workspace) -> str:
    count = ScoreWork(workspace, SCORED)((0, 1))
    assert count.done == 0, count
    return f"{count.skipped:,} skipped"


def measure_context(workspace: Workspace) -> str:
    """What a training run reads before its first step."""
    settings = TrainSettings(num_eval_pairs=64)
    kept, held_out = split_data(workspace, settings)
    found = make_context(
        workspace,
        build("models", "world").load(),  # type: ignore[attr-defined]
        cast(Curriculum, settings.curriculum),
        kept + held_out,
        Accelerator(cpu=True),
        seed=0,
        max_steps=12_000,
        per_device_batch_size=8,
        gradient_accumulation_steps=1,
    )
    return f"{len(found.candidates):,} candidates"


def measure_evaluate(workspace: Workspace) -> str:
    systems = {"base": (_weights(),), "tuned": (TUNED,)}
    metrics = tuple(Mean(dimension=dimension) for dimension in DIMENSIONS)
    found = evaluate(
        workspace,
        EvaluateSettings(
            systems=systems,
            split="align",
            guidance_scales=(SAMPLED.guidance_scale,),
            num_steps=SAMPLED.num_steps,
            metrics=metrics,
            oracles=(),
        ),
    )
    return f"{found.rows[0].num_clips:,} clips"


def measure_report(workspace: Workspace) -> str:
    """A page of 24 clips out of those that were compared; there are no video files."""
    path = report(workspace, ReportSettings())
    return f"{path.stat().st_size / 2**20:.1f} MiB"


def _weights() -> str:
    return str(build("models", "world").fingerprint)  # type: ignore[attr-defined]


def measure_curriculum(workspace: Workspace) -> str:
    """Pairs read, split and put in order for 12,000 steps of 8."""
    kept, _ = split_pairs(workspace.read(Pair), None, 64)
    curriculum = build("curricula", "two_stage")
    return curriculum.summary(kept, 12_000)  # type: ignore[attr-defined, no-any-return]


def measure_rows(workspace: Workspace) -> str:
    """An epoch's rows of latents in random order, a training step at a time."""
    table = workspace.table(Candidate, ["shard", "row"])
    shards, rows = table["shard"].to_pylist(), table["row"].to_pylist()
    epoch = _epoch(len(rows))
    start = time.perf_counter()
    for batch in epoch:
        workspace.shards.rows([(shards[i], rows[i]) for i in batch], "audio")
    return _rate(epoch, start)


def measure_rows_in_one_file(workspace: Workspace) -> str:
    """The same rows out of one memory-mapped array, for comparison."""
    path = workspace.root / "latents.npy"
    array = np.load(path, mmap_mode="r")
    epoch = _epoch(len(array))
    start = time.perf_counter()
    for batch in epoch:
        torch.from_numpy(array[batch])
    return _rate(epoch, start)


def _epoch(num_candidates: int) -> np.ndarray:
    """(steps, ROWS) of candidates, none of them twice."""
    order = np.random.default_rng(1).permutation(num_candidates)
    steps = num_candidates * 2 // NUM_CANDIDATES // ROWS
    return order[: steps * ROWS].reshape(steps, ROWS)


def _rate(epoch: np.ndarray, start: float) -> str:
    return f"{epoch.size:,} rows, {epoch.size / (time.perf_counter() - start):,.0f} rows/s"


MEASURES: dict[str, Callable[[Workspace], str]] = {
    "fit": measure_fit,
    "pair": measure_pair,
    "curriculum": measure_curriculum,
    "training's context": measure_context,
    "evaluate": measure_evaluate,
    "report": measure_report,
    "sample, all there": measure_sample_again,
    "score, all there": measure_score_again,
    "latent rows, cold": measure_rows,
    "latent rows, warm": measure_rows,
    "one mapped file, cold": measure_rows_in_one_file,
    "one mapped file, warm": measure_rows_in_one_file,
}


def run_one(name: str, root: Path) -> None:
    """One measurement; its figures as JSON on stdout."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    said = MEASURES[name](Workspace(root, create=False))
    use = resource.getrusage(resource.RUSAGE_SELF)
    status = Path("/proc/self/status").read_text()  # ru_maxrss would tell of the parent's memory too
    figures = {
        "wall_s": time.perf_counter() - start,
        "cpu_s": use.ru_utime + use.ru_stime,
        "peak_mib": int(status.partition("VmHWM:")[2].split()[0]) / 1024,
        "said": said,
    }
    print(json.dumps(figures))


def measured(name: str, root: Path) -> dict[str, float | str]:
    """The figures of one measurement in a new process."""
    if name.endswith("cold"):
        drop_from_cache(root)
    command = [sys.executable, __file__, "--one", name, "--folder", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def drop_from_cache(root: Path) -> None:
    """Forget the pages of every file of tensors; written ones are synced first."""
    os.sync()
    for path in files(root):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def files(root: Path) -> Iterator[Path]:
    """All files of a workspace."""
    return (path for path in root.rglob("*") if path.is_file())


def main() -> None:
    """Make what is missing, measure everything, print a table a size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[500, 5000, 50_000])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--one", choices=list(MEASURES), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        return run_one(args.one, args.folder)
    for num in args.clips:
        root = args.folder / f"{num}"
        if not (root / "made").exists():
            start = time.perf_counter()
            make(root, num)
            stack_latents(Workspace(root), root / "latents.npy")
            (root / "made").touch()
            print(f"{num:,} clips made in {time.perf_counter() - start:.0f} s", flush=True)
        sizes = [path.stat().st_size for path in files(root)]
        print(f"\n{num:,} clips × {NUM_CANDIDATES}: {len(sizes):,} files, {sum(sizes) / 1e9:.2f} GB")
        for name in MEASURES:
            figures = measured(name, root)
            numbers = "{wall_s:8.1f} s {cpu_s:8.1f} CPU s {peak_mib:8.0f} MiB  {said}".format(**figures)
            print(f"  {name:24s}{numbers}", flush=True)
    return None


def stack_latents(workspace: Workspace, path: Path) -> None:
    """All latents as one array on disk, in the order of ids: what a memory map is compared on."""
    candidates = workspace.read(Candidate)
    out = np.lib.format.open_memmap(path, "w+", np.float16, (len(candidates), *LATENT))
    for begin in range(0, len(candidates), 1000):
        part = candidates[begin : begin + 1000]
        out[begin : begin + len(part)] = workspace.latents(part)["audio"].numpy()
    out.flush()


if __name__ == "__main__":
    main()
