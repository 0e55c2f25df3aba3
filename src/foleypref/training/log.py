"""The log of a training run: means of logs, `metrics.jsonl` beside TensorBoard, and the pace.

Everything in `metrics.jsonl` is a function of the settings except the keys under `time/`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foleypref.media.files import write_atomic
from foleypref.workspace.paths import RunFiles


class Meter:
    """Means of logs over micro-batches, steps and processes; every value of a key has the same weight."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}  # key -> [sum, count]

    def add(self, logs: Mapping[str, Tensor | float]) -> None:
        """Add logs as `Loss.logs` has them: floats, or tensors (n,) of n values, n = 0 allowed."""
        for key, value in logs.items():
            values = torch.as_tensor(value).detach().cpu().double().reshape(-1)
            if values.numel():
                total = self._sums.setdefault(key, [0.0, 0])
                total[0] += values.sum().item()
                total[1] += values.numel()

    def reduce(self) -> None:
        """Gather the sums of all processes on process 0 and clear the others. Every process must call it."""
        if not torch.distributed.is_available() or not torch.distributed.is_initialized():
            return
        gathered: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(gathered, self._sums)
        self._sums = {}
        if torch.distributed.get_rank() == 0:
            for sums in gathered:
                for key, (value, count) in sums.items():
                    total = self._sums.setdefault(key, [0.0, 0])
                    total[0] += value
                    total[1] += count

    def take(self) -> dict[str, float]:
        """Return the means by key, and clear the sums."""
        means = {key: value / count for key, (value, count) in sorted(self._sums.items())}
        self._sums = {}
        return means

    def state(self) -> dict[str, list[float]]:
        """Return sums and counts, for a checkpoint."""
        return {key: list(total) for key, total in self._sums.items()}

    def restore(self, state: Mapping[str, list[float]]) -> None:
        """Set the sums and counts to those of `state()`."""
        self._sums = {key: list(total) for key, total in state.items()}


class RunLog:
    """Appends one JSON object per logged step to RUN/metrics.jsonl, and the same numbers to TensorBoard."""

    def __init__(self, run: Path, step: int, tensorboard: bool) -> None:
        """Open the log after `step` (0: empty); removes lines that a killed run had written beyond it."""
        self.path = RunFiles(run).metrics
        lines = [x for x in read_metrics(run) if step and x["step"] <= step and "stopped" not in x]
        write_atomic(self.path, "".join(json.dumps(line) + "\n" for line in lines).encode())
        self._writer: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # seconds to import

            self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1 if step else 0)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of a step; a number that is not finite is written as null."""
        finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **finite}) + "\n")
        if self._writer is not None:
            for key, value in values.items():
                self._writer.add_scalar(key, value, step)
            self._writer.flush()

    def stopped(self, step: int, reason: str, exported_step: int) -> None:
        """Write why training ended before its last step, and the step whose weights are exported."""
        line = {"step": step, "stopped": reason, "exported_step": exported_step}
        with self.path.open("a") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Close TensorBoard's file, if there is one."""
        if self._writer is not None:
            self._writer.close()


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Read the lines of a run's metrics.jsonl; a last line that was cut short is left out."""
    path = RunFiles(run).metrics
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


class Pace:
    """Steps and pairs per second since the last reading, and the time left at that pace."""

    def __init__(self, step: int, max_steps: int, pairs_per_step: int) -> None:
        self._max_steps, self._pairs = max_steps, pairs_per_step
        self._start = self._last = time.perf_counter()
        self._step = step

    def read(self, step: int) -> dict[str, float]:
        """Return wall-clock numbers at `step`, with keys under `time/`."""
        now = time.perf_counter()
        rate = (step - self._step) / max(now - self._last, 1e-9)
        self._step, self._last = step, now
        return {
            "time/elapsed_s": round(now - self._start, 3),
            "time/steps_per_s": round(rate, 3),
            "time/pairs_per_s": round(rate * self._pairs, 3),
            "time/left_s": round((self._max_steps - step) / rate, 1) if rate else 0.0,
        }
