"""The stages that handle records, on synthetic workspaces of 500, 5,000 and 50,000 clips × 5 candidates.

    python benchmarks/scale.py --folder runs/scale                      # 10 GB of disk
    python benchmarks/scale.py --folder runs/scale --clips 500 5000

Records are as the stages leave them: a part for every batch, every row of latents and conditions at its true
size (the world model's, 6.4 and 14 kB), four dimensions scored. Each measurement is a process that
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

import numpy as np
import torch
from accelerate import Accelerator
from scale_workspace import DIMENSIONS, NUM_CANDIDATES, SAMPLED, SCORED, TUNED, make, stack_latents

from foleypref.evaluate import EvaluateSettings, evaluate
from foleypref.evaluation.metrics.mean import Mean
from foleypref.fit import FitSettings, fit
from foleypref.pair import PairSettings, pair
from foleypref.report import ReportSettings, report
from foleypref.sample import SampleWork
from foleypref.score import ScoreWork
from foleypref.settings.parts import build
from foleypref.training.data import split_pairs
from foleypref.training.inputs import make_context, split_data
from foleypref.training.settings import TrainSettings
from foleypref.workspace.records import Candidate, Pair
from foleypref.workspace.store import Workspace

ROWS = 16  # a training step's latents; an epoch has two of every clip


# -- the measurements, each run in its own process --------------------------------------------------------


def measure_fit(workspace: Workspace) -> str:
    fit(workspace, FitSettings(dimensions=DIMENSIONS))
    return ""


def measure_pair(workspace: Workspace) -> str:
    return f"{sum(pair(workspace, PairSettings(weights=_weights())).pairs.values()):,} pairs"


def measure_sample_again(workspace: Workspace) -> str:
    """Sample when all candidates exist: the cost of finding that out."""
    count = SampleWork(workspace, SAMPLED)((0, 1))
    assert count.done == 0, count
    return f"{count.skipped:,} skipped"


def measure_score_again(workspace: Workspace) -> str:
    count = ScoreWork(workspace, SCORED)((0, 1))
    assert count.done == 0, count
    return f"{count.skipped:,} skipped"


def measure_context(workspace: Workspace) -> str:
    """Read what a training run reads before its first step."""
    settings = TrainSettings(num_eval_pairs=64)
    train, held_out = split_data(workspace, settings)
    model = build("models", "world").load()  # type: ignore[attr-defined]
    context = make_context(workspace, model, settings, train + held_out, accelerator=Accelerator(cpu=True))
    return f"{len(context.candidates):,} candidates"


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
    """Write a page of 24 of the compared clips; there are no video files."""
    path = report(workspace, ReportSettings())
    return f"{path.stat().st_size / 2**20:.1f} MiB"


def _weights() -> str:
    return str(build("models", "world").fingerprint)  # type: ignore[attr-defined]


def measure_curriculum(workspace: Workspace) -> str:
    """Read the pairs, split them and order them for 12,000 steps of 8."""
    kept, _ = split_pairs(workspace.read(Pair), None, 64)
    curriculum = build("curricula", "two_stage")
    return curriculum.summary(kept, 12_000)  # type: ignore[attr-defined, no-any-return]


def measure_rows(workspace: Workspace) -> str:
    """Read an epoch's rows of latents in random order, one training step at a time."""
    table = workspace.table(Candidate, ["shard", "row"])
    shards, rows = table["shard"].to_pylist(), table["row"].to_pylist()
    epoch = _epoch(len(rows))
    start = time.perf_counter()
    for batch in epoch:
        workspace.shards.rows([(shards[i], rows[i]) for i in batch], "audio")
    return _rate(epoch, start)


def measure_rows_in_one_file(workspace: Workspace) -> str:
    """Read the same rows from one memory-mapped array, for comparison."""
    path = workspace.root / "latents.npy"
    array = np.load(path, mmap_mode="r")
    epoch = _epoch(len(array))
    start = time.perf_counter()
    for batch in epoch:
        torch.from_numpy(array[batch])
    return _rate(epoch, start)


def _epoch(num_candidates: int) -> np.ndarray:
    """Return (steps, ROWS) of candidates, none of them twice."""
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
    """Run one measurement and print its figures as JSON."""
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
    """Return the figures of one measurement in a new process."""
    if name.endswith("cold"):
        drop_from_cache(root)
    command = [sys.executable, __file__, "--one", name, "--folder", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def drop_from_cache(root: Path) -> None:
    """Drop every file of tensors from the page cache; written pages are synced first."""
    os.sync()
    for path in files(root):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def files(root: Path) -> Iterator[Path]:
    """Return all files of a workspace."""
    return (path for path in root.rglob("*") if path.is_file())


def main() -> None:
    """Make what is missing, measure everything, and print a table per size."""
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


if __name__ == "__main__":
    main()
