"""How a stage walks over its plan: fixed batches, skip what exists, count everything, show time left.

A batch is a function of the plan, never of what happens to be missing, so a run that was killed and started
again computes the very same batches and its results equal an unbroken run's bit for bit.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from foleypref.workspace.records import Failure, Record
from foleypref.workspace.store import Workspace

T = TypeVar("T")
console = Console(stderr=True, highlight=False)


@dataclass
class StageCount:
    """What a stage did: `done` now, `skipped` because it was there, `failed` with a recorded reason."""

    stage: str
    done: int = 0
    skipped: int = 0
    failed: int = 0
    seconds: float = 0.0

    def add(self, other: StageCount) -> None:
        """Count what another pass over the same plan did."""
        self.done, self.skipped = self.done + other.done, self.skipped + other.skipped
        self.failed, self.seconds = max(self.failed, other.failed), self.seconds + other.seconds

    def line(self) -> str:
        """The stage's last line."""
        rate = f", {self.done / self.seconds:.1f}/s" if self.done and self.seconds > 0 else ""
        return (
            f"{self.stage}: {self.done} done, {self.skipped} skipped, {self.failed} failed "
            f"in {self.seconds:.1f} s{rate}"
        )


def say(text: str) -> None:
    """One line to the person at the terminal (stderr; stdout is for results)."""
    console.print(text, markup=False, soft_wrap=True)


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields `advance(n)`. A bar with the time left on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty() or total == 0:
        yield lambda n: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda n: bar.advance(task, n)


def run_batches(
    workspace: Workspace,
    stage: str,
    plan: Sequence[T],
    item_id: Callable[[T], str],
    done_ids: set[str],
    process: Callable[[list[T]], Iterable[Record]],
    batch_size: int,
    shard: tuple[int, int] = (0, 1),
    block: int = 1,
    unable: Collection[str] = (),
) -> StageCount:
    """Process `plan` in fixed batches and append each one's records; shard i of n has every n-th block.

    A block is that many batches in a row. `item_id(item)` is the id whose presence in `done_ids` means the
    item is done; items with a recorded failure of this stage are not tried again. `process(batch)` returns
    records, the marking ones last; a ValueError it raises for a batch of one is recorded as that item's
    failure, for a larger batch the items are tried one by one, so a bad input costs itself alone. What is
    `unable`, as an earlier stage failed on it, counts as failed and leaves the others' batches as they are.
    """
    failed_before = {f.item for f in workspace.read(Failure) if f.stage == stage}
    lost = failed_before.union(unable)
    count = StageCount(stage)
    start = time.perf_counter()
    index, num = shard
    begins = [b for b in range(0, len(plan), batch_size) if b // (batch_size * block) % num == index]
    with progress_bar(stage, sum(min(batch_size, len(plan) - begin) for begin in begins)) as advance:
        for begin in begins:
            batch = list(plan[begin : begin + batch_size])
            todo = [i for i in batch if item_id(i) not in done_ids and item_id(i) not in lost]
            count.failed += sum(item_id(i) in lost for i in batch)
            count.skipped += sum(item_id(i) in done_ids for i in batch)
            if todo:
                # A batch that was split for a bad item stays split, or a resumed run would group it anew.
                groups = (
                    [todo] if not failed_before.intersection(map(item_id, batch)) else [[i] for i in todo]
                )
                failures = sum(_process(workspace, stage, group, item_id, process) for group in groups)
                count.failed += failures
                count.done += len(todo) - failures
            advance(len(batch))
    count.seconds = time.perf_counter() - start
    say(count.line())
    return count


def _process(
    workspace: Workspace,
    stage: str,
    todo: list[T],
    item_id: Callable[[T], str],
    process: Callable[[list[T]], Iterable[Record]],
) -> int:
    try:
        records = list(process(todo))
    except ValueError as error:
        if len(todo) > 1:
            return sum(_process(workspace, stage, [item], item_id, process) for item in todo)
        records = [Failure.make(stage, item_id(todo[0]), str(error))]
    workspace.append(records)
    return sum(isinstance(r, Failure) and r.stage == stage for r in records)
