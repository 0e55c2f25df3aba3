"""How a stage is spread over processes: this one, several of this machine, one share of a cluster, or Ray.

Batches are always cut from the plan in the same way, each writes its files and records before it counts as
done, and the same command goes on after a stop. So the choice of engine never changes the results.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from foleypref.settings.parts import Settings
from foleypref.workspace.pool import process_pool
from foleypref.workspace.store import WHOLE, Shard, Workspace
from foleypref.workspace.walk import StageCount, progress_bar, say


class MapSettings(Settings):
    """Base of the settings of a stage whose batches may be spread over processes."""

    num_workers: int = Field(1, ge=1)  # processes on this machine; with several GPUs each gets one
    shard: str = ""  # "3/8": this process does the fourth of eight shares, others the rest
    engine: Literal["processes", "ray"] = "processes"  # ray: `num_workers` actors of a Ray cluster
    device: str = "cpu"

    @model_serializer(mode="wrap")
    def _dump_own_fields_last(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Put the stage's own fields first, which is how recipes list them."""
        data = handler(self)
        shared = {key: data.pop(key) for key in MapSettings.model_fields if key in data}
        return {**data, **shared}


M = TypeVar("M", bound=MapSettings)

Work = Callable[[Shard], StageCount]
"""A stage with everything loaded: does what is missing of one shard."""


def run_map(make: Callable[[Workspace, M], Work], workspace: Workspace, settings: M) -> StageCount:
    """Do the work that `make(workspace, settings)` prepares, in the processes that the settings ask for.

    Other processes import `make` by its name. Raises ValueError if the work does.
    """
    shard = parse_shard(settings.shard)
    if settings.shard and (settings.num_workers > 1 or settings.engine != "processes"):
        raise ValueError(
            f"shard={settings.shard!r} is one process's share; leave num_workers at 1 and engine alone"
        )
    if settings.engine == "ray":
        return run_ray(make, workspace, settings)
    if settings.num_workers > 1:
        return run_workers(make, workspace, settings)
    return make(workspace, settings)(shard)


def parse_shard(text: str) -> Shard:
    """Parse "3/8", the fourth of eight, to (3, 8) and "" to the whole. Raises ValueError."""
    if not text:
        return WHOLE
    first, _, second = text.partition("/")
    if not (first.isdigit() and second.isdigit() and int(first) < int(second)):
        raise ValueError(f"shard is I/N with I from 0 to N - 1, as in 0/8, found {text!r}")
    return int(first), int(second)


def run_workers(make: Callable[[Workspace, M], Work], workspace: Workspace, settings: M) -> StageCount:
    """Make the work in `num_workers` new processes, do one shard in each, and add up the counts.

    With several GPUs and device "cuda" each worker gets one. Raises ValueError if a worker does, or dies.
    """
    num = settings.num_workers
    threads = max(1, (os.cpu_count() or 1) // num)
    shards = [(index, num) for index in range(num)]
    gpus = torch.cuda.device_count() if settings.device == "cuda" else 0
    devices = [f"cuda:{index % gpus}" if gpus > 1 else settings.device for index in range(num)]
    placed = [settings.model_copy(update={"device": device}) for device in devices]
    try:
        with process_pool(num) as pool:
            counts = list(pool.map(partial(_work, make, workspace.root, threads), placed, shards))
    except BrokenProcessPool:
        raise ValueError(
            "a worker was killed (out of memory?); the same command goes on where it was, "
            "with fewer --num-workers or a smaller --batch-size if need be"
        ) from None
    return merge_counts(counts)


def merge_counts(counts: Sequence[StageCount]) -> StageCount:
    """Add up the counts of shards that ran side by side; the time is the slowest one's."""
    sums = {name: sum(getattr(c, name) for c in counts) for name in ("done", "skipped", "failed")}
    return StageCount(counts[0].stage, **sums, seconds=max(c.seconds for c in counts))


def _work(
    make: Callable[[Workspace, M], Work], root: Path, threads: int, settings: M, shard: Shard
) -> StageCount:
    torch.set_num_threads(threads)
    return make(Workspace(root), settings)(shard)


SHARES = 8  # per actor, on average: few enough to start quickly, enough for actors to end together


class ShareActor:
    """Holds the loaded work and does the shares it is given. A ValueError comes back as text in "error"."""

    def __init__(
        self, make: Callable[[Workspace, Any], Work], root: str, settings: MapSettings, num: int
    ) -> None:
        self._prepare = lambda: make(Workspace(Path(root)), settings)
        self._work: Work | None = None
        self._num = num

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Do the share whose number is in the row; returns a row with its counts."""
        (index,) = batch["id"]
        try:
            self._work = self._work or self._prepare()
            row = {**vars(self._work((int(index), self._num))), "error": ""}
        except ValueError as error:
            row = {**vars(StageCount("")), "error": str(error)}
        return {name: [value] for name, value in row.items()}


def run_ray(make: Callable[[Workspace, M], Work], workspace: Workspace, settings: M) -> StageCount:
    """Do the work with `num_workers` actors, with one GPU each if the device is "cuda".

    Joins the cluster of RAY_ADDRESS, or starts one on this machine. Raises ValueError if the work does.
    """
    num_workers = settings.num_workers
    try:
        import ray
        from ray.data import ActorPoolStrategy
    except ImportError:
        raise ValueError("engine=ray needs the package ray: pip install 'foleypref[ray]'") from None
    if not ray.is_initialized():
        ray.data.DataContext.get_current().enable_progress_bars = False
        # With no more processors than actors, Ray Data would wait forever.
        own = {"num_cpus": max(os.cpu_count() or 1, num_workers + 1), "include_dashboard": False}
        ray.init(log_to_driver=False, **({} if os.environ.get("RAY_ADDRESS") else own))
    num = SHARES * num_workers
    on_gpu = settings.device.startswith("cuda")
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
            if error := row.pop("error"):
                raise ValueError(error)
            counts.append(StageCount(**row))
            advance(1)
    total = merge_counts(counts)
    total.seconds = sum(count.seconds for count in counts) / num_workers
    say(total.line())
    return total
