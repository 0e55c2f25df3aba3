"""How a stage walks over its plan: fixed batches, skip what exists, count everything, show time left.

A batch is a function of the plan, never of what happens to be missing. So a run that was killed and started
again computes the same batches, and its results equal an unbroken run's bit for bit.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from foleypref.workspace.records import Failure, Record
from foleypref.workspace.store import WHOLE, Shard, Workspace

T = TypeVar("T")
console = Console(stderr=True, highlight=False)


@dataclass
class StageCount:
    """Items by outcome: `done` now, `skipped` as they existed, `failed` with a recorded reason."""

    stage: str
    done: int = 0
    skipped: int = 0
    failed: int = 0
    seconds: float = 0.0

    def add(self, other: StageCount) -> None:
        """Add the counts of another pass over the same plan, which meets the same failures again."""
        self.done, self.skipped = self.done + other.done, self.skipped + other.skipped
        self.failed, self.seconds = max(self.failed, other.failed), self.seconds + other.seconds

    def line(self) -> str:
        """Return the line that a stage ends with."""
        rate = f", {self.done / self.seconds:.1f}/s" if self.done and self.seconds > 0 else ""
        return (
            f"{self.stage}: {self.done} done, {self.skipped} skipped, {self.failed} failed "
            f"in {self.seconds:.1f} s{rate}"
        )


def say(text: str) -> None:
    """Print one line for the user on stderr; stdout is for results."""
    console.print(text, markup=False, soft_wrap=True)


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield `advance(n)`. Shows a bar with the time left on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty() or total == 0:
        yield lambda n: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda n: bar.advance(task, n)


@dataclass(frozen=True)
class Stage(Generic[T]):
    """One pass over a plan of items: which are done, and how a batch of the others becomes records.

    `process(batch)` returns records, last the ones that mark items as done. If it raises a ValueError, the
    items are tried one by one, and an item that fails by itself becomes a recorded failure: a bad input never
    costs another. Items with a recorded failure of this stage are not tried again.
    """

    name: str
    plan: Sequence[T]
    item_id: Callable[[T], str]  # what `done` and `unable` name an item by
    done: Collection[str]
    process: Callable[[list[T]], Iterable[Record]]
    batch_size: int
    block: int = 1  # batches in a row that one shard takes
    unable: Collection[str] = ()  # an earlier stage failed on these: failed, but they keep their place

    def run(self, workspace: Workspace, shard: Shard = WHOLE) -> StageCount:
        """Process what is missing of shard i of n, which has every n-th block, and append the records."""
        failed_before = {f.item for f in workspace.read(Failure) if f.stage == self.name}
        lost = failed_before.union(self.unable)
        count, start = StageCount(self.name), time.perf_counter()
        batches = self._batches(shard)
        with progress_bar(self.name, sum(map(len, batches))) as advance:
            for batch in batches:
                ids = [self.item_id(item) for item in batch]
                todo = [item for item, i in zip(batch, ids) if i not in self.done and i not in lost]
                count.failed += sum(i in lost for i in ids)
                count.skipped += sum(i in self.done for i in ids)
                # A batch that was split for a bad item stays split, or a resumed run would group it anew.
                split = bool(failed_before.intersection(ids))
                groups = [[item] for item in todo] if split else [todo] if todo else []
                failures = sum(self._process(workspace, group) for group in groups)
                count.failed += failures
                count.done += len(todo) - failures
                advance(len(batch))
        count.seconds = time.perf_counter() - start
        say(count.line())
        return count

    def _batches(self, shard: Shard) -> list[list[T]]:
        index, num = shard
        begins = range(0, len(self.plan), self.batch_size)
        mine = [begin for k, begin in enumerate(begins) if k // self.block % num == index]
        return [list(self.plan[begin : begin + self.batch_size]) for begin in mine]

    def _process(self, workspace: Workspace, items: list[T]) -> int:
        """Append the records of some items; returns how many items failed."""
        try:
            records = list(self.process(items))
        except ValueError as error:
            if len(items) > 1:
                return sum(self._process(workspace, [item]) for item in items)
            records = [Failure.make(self.name, self.item_id(items[0]), str(error))]
        workspace.append(records)
        return sum(isinstance(r, Failure) and r.stage == self.name for r in records)
