"""A map stage over a Ray cluster: an actor pool of Ray Data whose actors do shares and return counts alone.

Durability stays ours: every batch is on disk before it counts, whoever did it. Ray gives shares to whoever is
free and gives those of a lost actor to another, which skips the batches that are there. Nothing but counts
goes through Ray's object store; the workspace must be on a disk that all machines see.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from foleytune.plugins import Settings
from foleytune.stages import StageCount, progress_bar, say
from foleytune.store import Workspace
from foleytune.workers import Work, added

S = TypeVar("S", bound=Settings)
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
        raise ValueError("engine=ray needs the package ray: pip install 'foleytune[ray]'") from None
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
