"""Ray as the engine: the same files as one process, even if an actor or the driver is killed on the way."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from foleypref.sample import SampleSettings, SampleWork, sample
from foleypref.score import ScoreSettings, score
from foleypref.workspace.records import Clip
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import StageCount
from tests.world_workspace import NUM_CLIPS, world_workspace

ray = pytest.importorskip("ray")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
FEW = SampleSettings(num_candidates=2, num_steps=2, guidance_scale=1.0, batch_size=4, num_workers=2)
NUM = 160  # clips
DRIVER = """
import sys
from foleypref.sample import sample
from foleypref.workspace.store import Workspace
from tests.workspace.test_ray_engine import FEW
sample(Workspace(sys.argv[1]), FEW.model_copy(update={"engine": "ray"}))
"""


@pytest.fixture(autouse=True)
def _no_cluster_left() -> Iterator[None]:
    yield
    ray.shutdown()


class KilledOnce(SampleWork):
    """Sampling whose actor dies after its first share, once."""

    def __call__(self, shard: tuple[int, int]) -> StageCount:
        count = super().__call__(shard)
        mark = self.workspace.root / "killed"
        if count.done and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return count


def workspace_of(folder: Path) -> Workspace:
    """A workspace with enough clips for several shares."""
    workspace = world_workspace(folder)
    first = workspace.read(Clip)
    copies = [dataclasses.replace(first[i % NUM_CLIPS], clip_id=f"{i:03d}") for i in range(NUM - NUM_CLIPS)]
    workspace.append(copies)
    return workspace


def files_of(root: Path) -> dict[Path, bytes]:
    paths = (*root.glob("tensors/*/*"), *root.glob("tables/*/*"))
    return {path.relative_to(root): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, bytes]:
    """Files of a workspace that one process has sampled."""
    workspace = workspace_of(tmp_path_factory.mktemp("ray") / "whole")
    sample(workspace, FEW.model_copy(update={"num_workers": 1}))
    return files_of(workspace.root)


def test_actors_write_what_one_process_does(tmp_path: Path, whole: dict[Path, bytes]) -> None:
    workspace = workspace_of(tmp_path / "ray")
    count = sample(workspace, FEW.model_copy(update={"engine": "ray"}))
    assert (count.done, count.skipped, count.failed) == (2 * NUM, 0, 0)
    assert files_of(workspace.root) == whole
    judged = ScoreSettings(scorers=("oracle_noise",), optional_scorers=(), num_workers=2, engine="ray")
    assert score(workspace, judged).done > 2 * NUM
    assert score(workspace, judged.model_copy(update={"engine": "processes"})).done == 0


def test_a_killed_actor_costs_nothing(tmp_path: Path, whole: dict[Path, bytes]) -> None:
    from foleypref.workspace.engines import run_ray

    workspace = workspace_of(tmp_path / "ray")
    count = run_ray(KilledOnce, workspace, FEW)
    assert (workspace.root / "killed").exists()
    assert count.done + count.skipped == 2 * NUM
    assert count.skipped > 0  # the actor that took over the share found the work of the dead one
    (workspace.root / "killed").unlink()
    assert files_of(workspace.root) == whole


def test_a_killed_driver_loses_no_finished_batch(tmp_path: Path, whole: dict[Path, bytes]) -> None:
    workspace = workspace_of(tmp_path / "ray")
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(workspace.root)], start_new_session=True, stderr=subprocess.DEVNULL
    )
    shards = lambda: list(workspace.root.glob("tables/candidates/*.parquet"))  # noqa: E731
    until = time.monotonic() + 120
    while len(shards()) < 5 and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    subprocess.run([sys.executable, "-m", "ray.scripts.scripts", "stop", "--force"], capture_output=True)
    kept = {path: path.stat().st_mtime_ns for path in shards()}
    assert 5 <= len(kept) < len([p for p in whole if p.parts[:2] == ("tables", "candidates")])
    count = sample(Workspace(workspace.root), FEW.model_copy(update={"engine": "ray"}))
    assert count.skipped >= 4 * len(kept) - 4  # a batch of four may be on disk without its record
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert files_of(workspace.root) == whole


def test_a_users_mistake_is_one_line(tmp_path: Path) -> None:
    workspace = workspace_of(tmp_path / "ray")
    with pytest.raises(ValueError, match="no clips of split 'test'"):
        sample(workspace, FEW.model_copy(update={"engine": "ray", "split": "test"}))
