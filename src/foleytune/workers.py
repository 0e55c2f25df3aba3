"""A stage over several processes of this machine, or over shards that a cluster starts: the same records.

Shard i of n takes every n-th batch of the plan, so each batch is what it would be in one process, and what
a killed worker leaves is what any restart goes on from.
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
from typing import TypeVar

import torch

from foleytune.plugins import Settings
from foleytune.stages import StageCount
from foleytune.store import Workspace

S = TypeVar("S", bound=Settings)
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
