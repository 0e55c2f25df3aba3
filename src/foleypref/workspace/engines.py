"""What runs a map stage: this process, several of this machine, one share of a cluster's, or Ray's actors.

Whatever runs it, batches are cut from the plan in one way, each writes its own files and records before it
counts as done, and the same command goes on where it was. So engines differ in who does a batch and never in
what comes out.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch

from foleypref.settings.parts import Settings
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import StageCount, progress_bar, say

S = TypeVar("S", bound=Settings)


def run_map(make: Callable[[Workspace, S], Work], workspace: Workspace, settings: S) -> StageCount:
    """Do what `make(workspace, settings)` prepares, by the settings `engine`, `num_workers` and `shard`.

    `make` is importable by name: other processes call it. Raises ValueError where the work did.
    """
    how: Any = settings
    shard = parse_shard(how.shard)
    if how.shard and (how.num_workers > 1 or how.engine != "processes"):
        raise ValueError(
            f"shard={how.shard!r} is one process's share; leave num_workers at 1 and engine alone"
        )
    if how.engine == "ray":
        return run_ray(make, workspace, settings, how.num_workers)
    if how.num_workers > 1:
        return run_workers(make, workspace, settings, how.num_workers)
    return make(workspace, settings)(shard)


Shard = tuple[int, int]  # i of n


Work = Callable[[Shard], StageCount]
"""A map stage with everything loaded: does what is missing of one shard."""


def parse_shard(text: str) -> tuple[int, int]:
    """ "3/8", the fourth of eight, to (3, 8); "" to (0, 1). Raises ValueError."""
    if not text:
        return 0, 1
    first, _, second = text.partition("/")
    if not (first.isdigit() and second.isdigit() and int(first) < int(second)):
        raise ValueError(f"shard is I/N with I from 0 to N - 1, as in 0/8, found {text!r}")
    return int(first), int(second)


def run_workers(
    make: Callable[[Workspace, S], Work], workspace: Workspace, settings: S, num_workers: int
) -> StageCount:
    """Make the work in `num_workers` new processes, do one shard in each, and add up what they did.

    With several GPUs and device "cuda" each worker gets one. Raises ValueError where a worker did, or died.
    """
    threads = max(1, (os.cpu_count() or 1) // num_workers)
    parts = [_placed(settings, index) for index in range(num_workers)]
    shards = [(index, num_workers) for index in range(num_workers)]
    pool = ProcessPoolExecutor(num_workers, mp_context=get_context("spawn"), initializer=_ignore_interrupt)
    try:
        counts = list(pool.map(partial(_work, make, workspace.root, threads), parts, shards))
    except BrokenProcessPool:
        raise ValueError(
            "a worker was killed (out of memory?); the same command goes on where it was, "
            "with fewer --num-workers or a smaller --batch-size if need be"
        ) from None
    finally:
        _stop(pool)
    return added(counts)


def added(counts: Sequence[StageCount]) -> StageCount:
    """What shards that ran side by side did together, in the time of the slowest."""
    total = StageCount(counts[0].stage, seconds=max(count.seconds for count in counts))
    total.done, total.skipped, total.failed = (
        sum(getattr(count, name) for count in counts) for name in ("done", "skipped", "failed")
    )
    return total


def _stop(pool: ProcessPoolExecutor) -> None:
    """End every worker, also one in the middle of a batch: it leaves nothing half written."""
    for process in list((pool._processes or {}).values()):
        process.terminate()
    pool.shutdown(wait=True, cancel_futures=True)


def _placed(settings: S, index: int) -> S:
    device = getattr(settings, "device", "cpu")
    if device == "cuda" and torch.cuda.device_count() > 1:
        device = f"cuda:{index % torch.cuda.device_count()}"
    return settings.model_copy(update={"device": device})


def _work(
    make: Callable[[Workspace, S], Work], root: Path, threads: int, settings: S, shard: Shard
) -> StageCount:
    torch.set_num_threads(threads)
    return make(Workspace(root), settings)(shard)


def _ignore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C and stops its workers


SHARES = 8  # an actor, on average: few enough to start quickly, enough to be shared out evenly


class ShareActor:
    """Holds the loaded work and does the shares it is given. A user's mistake comes back as "wrong"."""

    def __init__(self, make: Callable[[Workspace, Any], Work], root: str, settings: Any, num: int) -> None:
        self._prepare = lambda: make(Workspace(Path(root)), settings)
        self._work: Work | None = None
        self._num = num

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """A row with a share's number -> a row with what was done of it."""
        (index,) = batch["id"]
        try:
            self._work = self._work or self._prepare()
            row = {**vars(self._work((int(index), self._num))), "wrong": ""}
        except ValueError as error:
            row = {**vars(StageCount("")), "wrong": str(error)}
        return {name: [value] for name, value in row.items()}


def run_ray(
    make: Callable[[Workspace, S], Work], workspace: Workspace, settings: S, num_workers: int
) -> StageCount:
    """Do the work with `num_workers` actors, one GPU each where the device is "cuda".

    Joins the cluster of RAY_ADDRESS, or starts one on this machine. Raises ValueError where the work did.
    """
    try:
        import ray
        from ray.data import ActorPoolStrategy
    except ImportError:
        raise ValueError("engine=ray needs the package ray: pip install 'foleypref[ray]'") from None
    _join(ray, num_workers)
    num = SHARES * num_workers
    on_gpu = str(getattr(settings, "device", "cpu")).startswith("cuda")
    rows = ray.data.range(num, override_num_blocks=num).map_batches(
        ShareActor,
        fn_constructor_args=(make, str(workspace.root), settings, num),
        batch_size=1,
        num_cpus=1,
        num_gpus=1 if on_gpu else 0,
        compute=ActorPoolStrategy(size=num_workers),
    )
    counts = []
    with progress_bar("ray", num) as advance:
        for row in rows.iter_rows():
            wrong = row.pop("wrong")
            if wrong:
                raise ValueError(wrong)
            counts.append(StageCount(**row))
            advance(1)
    total = added(counts)
    total.seconds = sum(count.seconds for count in counts) / num_workers
    say(total.line())
    return total


def _join(ray: Any, num_workers: int) -> None:
    """A cluster with more processors than actors: where actors take them all, Ray Data waits forever."""
    if ray.is_initialized():
        return
    ray.data.DataContext.get_current().enable_progress_bars = False
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
        return
    ray.init(num_cpus=max(os.cpu_count() or 1, num_workers + 1), include_dashboard=False, log_to_driver=False)
