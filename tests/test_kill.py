"""kill -9 at ten random moments in every stage, then the same command: nothing lost, doubled or changed.

The whole recipe runs once unbroken and once with each stage killed ten times, in the same folder both times,
because records and settings hold paths. Then every table, tensor, weight and report file must be the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from foleypref.workspace.records import RECORDS
from foleypref.workspace.store import Workspace

STAGES = (
    "world", "ingest", "sample", "score", "rate", "fit", "pair", "train", "test", "evaluate", "report",
)  # fmt: skip
NUM_KILLS = 10
TINY = [
    "--world.align=10",
    "--world.test=4",
    "--sample.num-candidates=4",
    "--sample.batch-size=8",
    "--score.batch-size=8",
    "--train.max-steps=12",
    "--train.save-steps=4",
    "--train.per-device-train-batch-size=4",
    "--train.num-eval-pairs=2",
    "--train.eval-steps=6",
    "--train.logging-steps=2",
    "--evaluate.num-resamples=50",
    "--fit.min-ratings=10",
]


def command(root: Path, stage: str) -> list[str]:
    verb = [sys.executable, "-m", "foleypref", "align", "world_demo-ci", "--workspace", str(root)]
    return [*verb, "--until", stage, *TINY]


def run(root: Path, stage: str) -> float:
    begin = time.perf_counter()
    done = subprocess.run(command(root, stage), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return time.perf_counter() - begin


def run_and_kill(root: Path, stage: str, after_s: float) -> bool:
    """Start the stage and kill its whole process group after a while; False if it had already ended."""
    process = subprocess.Popen(
        command(root, stage),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(after_s)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True


def contents(root: Path) -> dict[str, str]:
    """Return the rows of all tables by id, and hashes of all other files by path."""
    workspace = Workspace(root, create=False)
    by_name: dict[str, str] = {}
    for name, cls in RECORDS.items():
        records = workspace.read(cls)
        by_name[f"table {name}"] = f"{len(records)} rows"
        by_name |= {f"{name} {r.record_id}": repr(r) for r in records}
        parts = workspace.root.glob(f"tables/{name}/*.parquet")
        rows = [i for p in parts for i in workspace_ids(p, cls.id_field)]
        assert len(rows) == len(set(rows)), f"{name} has a record twice"
    for path in sorted(root.rglob("*")):
        relative = str(path.relative_to(root))
        skip = ("tables/", "locks/", "tensors/")
        if path.is_file() and not relative.startswith(skip) and "tensorboard" not in relative:
            by_name[relative] = hashlib.sha256(without_times(path)).hexdigest()
    return by_name


def workspace_ids(part: Path, column: str) -> list[str]:
    import pyarrow.parquet as pq

    return pq.read_table(part, columns=[column]).column(column).to_pylist()


def without_times(path: Path) -> bytes:
    """Return a file's bytes without measured times."""
    if path.name == "metrics.jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows = [{k: v for k, v in row.items() if not k.startswith("time")} for row in rows]
        return json.dumps(rows).encode()
    if path.name == "result.json":
        data = json.loads(path.read_text())
        data["logs"] = {k: v for k, v in data["logs"].items() if not k.startswith("time")}
        return json.dumps(data).encode()
    return path.read_bytes()


def tensors(root: Path) -> dict[str, str]:
    """Return hashes of the shards that records point at."""
    workspace = Workspace(root, create=False)
    shards = {r.shard for cls in ("candidates", "features") for r in workspace.read(RECORDS[cls]) if r.shard}
    folder = root / "tensors"
    return {s: hashlib.sha256((folder / f"{s}.safetensors").read_bytes()).hexdigest() for s in shards}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_kills_in_every_stage_change_nothing(tmp_path):
    root, whole = tmp_path / "workspace", tmp_path / "unbroken"
    seconds = {stage: run(root, stage) for stage in STAGES}
    expected = contents(root), tensors(root)
    root.rename(whole)
    generator = random.Random(0)
    kills = dict.fromkeys(STAGES, 0)
    for stage in STAGES:
        before = tmp_path / "before"
        shutil.copytree(root, before) if root.exists() else before.mkdir()
        while kills[stage] < NUM_KILLS:
            if run_and_kill(root, stage, generator.uniform(0.2, max(0.5, seconds[stage]))):
                kills[stage] += 1
            else:  # the stage ended first: start it anew and kill that
                shutil.rmtree(root)
                shutil.copytree(before, root)
        shutil.rmtree(before)
        run(root, stage)
    got = contents(root), tensors(root)
    print({stage: (kills[stage], round(seconds[stage], 1)) for stage in STAGES})
    for mine, theirs in zip(got, expected):
        assert {k: v for k, v in mine.items() if theirs.get(k) != v} == {}
        assert set(theirs) - set(mine) == set()
