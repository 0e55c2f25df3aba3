"""What runs a map stage: this process, several of this machine, one share of a cluster's, or Ray's actors.

Whatever runs it, batches are cut from the plan in one way, each writes its own files and records before it
counts as done, and the same command goes on where it was. So engines differ in who does a batch and never in
what comes out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from foleytune.plugins import Settings
from foleytune.stages import StageCount
from foleytune.store import Workspace
from foleytune.workers import Work, parse_shard, run_workers

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
        from foleytune.ray_engine import run_ray

        return run_ray(make, workspace, settings, how.num_workers)
    if how.num_workers > 1:
        return run_workers(make, workspace, settings, how.num_workers)
    return make(workspace, settings)(shard)
