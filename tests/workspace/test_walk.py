"""`Stage.run` under kill -9: nothing lost or doubled; the bytes are those of an unbroken run."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from foleypref.flow.convention import generator_of
from foleypref.workspace.records import Candidate, Failure, Feature, Record
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import Stage, StageCount

NUM_ITEMS, BATCH, BAD = 22, 4, 9
FSYNCS_OF_A_BATCH = 6  # file and folder, for one shard and two tables


def item_id(seed: int) -> str:
    return Candidate.make_id("clip", "world", "w", seed, "euler", 1, 1.0)


def run_stage(root: Path, bad: int | None = None, tell: int | None = None) -> StageCount:
    """A stage as real ones are: a shard, a feature record, and last the candidate that marks an item done."""
    workspace = Workspace(root)

    def process(seeds: list[int]) -> list[Record]:
        if tell is not None:
            os.write(tell, b".")
        if bad in seeds:
            raise ValueError(f"seed {bad} is bad")
        ids = [item_id(seed) for seed in seeds]
        rows = torch.stack([torch.randn(3, generator=generator_of(seed)) for seed in seeds])
        shard = workspace.write_rows("latents", ids, {"audio": rows})
        features = [Feature(Feature.make_id(i, "k"), i, "k", shard, n) for n, i in enumerate(ids)]
        made = [
            Candidate(i, "clip", "world", "w", seed, "euler", 1, 1.0, shard, n)
            for n, (i, seed) in enumerate(zip(ids, seeds))
        ]
        return [*features, *made]

    with workspace.lock("sample"):
        done = workspace.ids(Candidate)
        stage = Stage("sample", range(NUM_ITEMS), item_id, done=done, process=process, batch_size=BATCH)
        return stage.run(workspace)


def contents(root: Path) -> dict[str, bytes]:
    """Every file of the workspace but its locks, as bytes."""
    files = (p for p in root.rglob("*") if p.is_file() and "locks" not in p.parts)
    return {str(p.relative_to(root)): p.read_bytes() for p in files}


def in_a_child(work: Callable[[], object], kill_when: Callable[[], bool] = lambda: False) -> bool:
    """Run `work` in a forked process, kill -9 it once `kill_when()` is true; True if it ended by itself."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    if kill_when():
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert not (os.WIFEXITED(status) and os.WEXITSTATUS(status)), "the stage raised in the child"
    return os.WIFEXITED(status)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("unbroken") / "workspace"
    run_stage(root)
    return contents(root)


def check_records(root: Path, bad: int | None) -> None:
    workspace = Workspace(root)
    made = workspace.read(Candidate)
    assert {c.seed for c in made} == set(range(NUM_ITEMS)) - {bad}
    for candidate, row in zip(made, workspace.rows(made)["audio"]):
        assert torch.equal(row, torch.randn(3, generator=generator_of(candidate.seed)))
    assert [f.item for f in workspace.read(Failure)] == ([] if bad is None else [item_id(bad)])


def test_a_run_counts_done_skipped_and_failed(tmp_path: Path) -> None:
    first = run_stage(tmp_path / "workspace", bad=BAD)
    assert (first.done, first.skipped, first.failed) == (NUM_ITEMS - 1, 0, 1)
    again = run_stage(tmp_path / "workspace", bad=BAD)
    assert (again.done, again.skipped, again.failed) == (0, NUM_ITEMS - 1, 1)
    assert again.line().startswith("sample: 0 done, 21 skipped, 1 failed in")


def test_a_bad_item_costs_itself_alone_and_says_why(tmp_path: Path) -> None:
    run_stage(tmp_path / "workspace", bad=BAD)
    (failure,) = Workspace(tmp_path / "workspace").read(Failure)
    assert (failure.stage, failure.item, failure.reason) == ("sample", item_id(BAD), "seed 9 is bad")


def test_a_bug_is_not_recorded_as_a_bad_input(workspace: Workspace) -> None:
    def process(batch: list[int]) -> list[Record]:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        Stage("sample", range(3), str, done=(), process=process, batch_size=2).run(workspace)
    assert workspace.read(Failure) == []


def test_batches_are_a_function_of_the_plan_not_of_what_is_missing(workspace: Workspace) -> None:
    seen: list[list[int]] = []

    def process(batch: list[int]) -> list[Record]:
        seen.append(batch)
        return []

    Stage("s", range(10), str, done={"0", "5"}, process=process, batch_size=4).run(workspace)
    assert seen == [[1, 2, 3], [4, 6, 7], [8, 9]]


def stage_that_dies(root: Path, fuse: int) -> None:
    """The stage, killed in front of its `fuse`-th fsync."""
    left, real = [fuse], os.fsync

    def fsync(descriptor: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        real(descriptor)

    os.fsync = fsync  # type: ignore[assignment]  # this process is about to die
    run_stage(root)


@pytest.mark.parametrize("fuse", range(1, 2 * FSYNCS_OF_A_BATCH + 1))
def test_killed_at_each_write_then_resumed_equals_unbroken(
    workspace: Workspace, unbroken: dict[str, bytes], fuse: int
) -> None:
    assert not in_a_child(lambda: stage_that_dies(workspace.root, fuse))
    run_stage(workspace.root)
    check_records(workspace.root, None)
    assert contents(workspace.root) == unbroken


def killed_soon_after(root: Path, bad: int | None, calls: int, wait_s: float) -> bool:
    """Run the stage and kill it `wait_s` after its `calls`-th batch began; False if it ended before."""
    hear, tell = os.pipe()

    def work() -> None:
        os.close(hear)
        run_stage(root, bad, tell)

    def moment() -> bool:
        os.close(tell)
        for _ in range(calls):  # progress, not time, so that a busy machine changes nothing
            if os.read(hear, 1) == b"":
                return False
        time.sleep(wait_s)
        return True

    ended = in_a_child(work, moment)
    os.close(hear)
    return not ended


@pytest.mark.parametrize("bad", [None, BAD])
def test_killed_at_random_moments_then_resumed_equals_unbroken(
    workspace: Workspace, unbroken: dict[str, bytes], bad: int | None
) -> None:
    rng, kills = random.Random(0), 0
    while killed_soon_after(workspace.root, bad, rng.randint(2, 3), rng.uniform(0, 0.004)):
        kills += 1
        assert kills < 50, "the stage never gets to its end"
    assert kills >= 2, "the stage was hardly interrupted, so this test shows nothing"
    run_stage(workspace.root, bad)  # sweeps what the last killed writer left
    check_records(workspace.root, bad)
    if bad is None:
        assert contents(workspace.root) == unbroken
