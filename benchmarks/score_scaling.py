"""Scoring the embedded world at growing size: seconds and peak memory must grow with the candidates, and not.

    python benchmarks/score_scaling.py --sizes 250 500 1000

Every size has its own workspace and process; five candidates per clip, sampled in one step, the world's
judges and oracles.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from foleypref.ingest import IngestSettings, ingest
from foleypref.sample import SampleSettings, sample
from foleypref.score import ScoreSettings, score
from foleypref.workspace.store import Workspace
from foleypref.world.make import make
from foleypref.world.settings import MakeSettings

CANDIDATES = 5


def prepare(root: Path, num_candidates: int) -> None:
    """Make clips and candidates; this is not measured."""
    settings = MakeSettings(split="align", num_clips=num_candidates // CANDIDATES, out=root / "videos")
    make(settings, quiet=True)
    workspace = Workspace(root / "workspace")
    ingest(workspace, IngestSettings(folder=root / "videos", validation_share=0, test_share=0))
    sample(
        workspace,
        SampleSettings(split="align", num_candidates=CANDIDATES, num_steps=1, guidance_scale=1.0),
    )


def measure(root: Path) -> None:
    """Score all of them; print seconds, CPU seconds and GiB."""
    workspace = Workspace(root / "workspace")
    begin, spent = time.perf_counter(), time.process_time()
    count = score(workspace, ScoreSettings(optional_scorers=(), ground_truth=False))
    seconds, spent = time.perf_counter() - begin, time.process_time() - spent
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"{count.done} {seconds:.1f} {spent:.1f} {peak:.3f}")


def main() -> None:
    """Measure every size and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[250, 500, 1000])
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        measure(args.child)
        return
    print(f"{'candidates':>12}{'seconds':>10}{'CPU ms each':>12}{'peak GiB':>10}")
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as name:
            prepare(Path(name), size)
            command = [sys.executable, __file__, "--child", name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            num, seconds, spent, peak = done.stdout.split()
            each = 1e3 * float(spent) / int(num)
            print(f"{num:>12}{float(seconds):>10.1f}{each:>12.1f}{float(peak):>10.2f}", flush=True)


if __name__ == "__main__":
    main()
