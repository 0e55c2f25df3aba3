"""The loop that all the world's networks learn by, and where a long one keeps itself."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foleypref.media.files import atomic_path
from foleypref.workspace.walk import progress_bar

Log = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Fit:
    """How long a network learns, from which seed, and where its losses and its checkpoint go."""

    steps: int
    seed: int
    log: Log
    checkpoint: Path | None = None


@dataclass(frozen=True)
class Checkpoint:
    """The file that a long training resumes from; `average` is saved and loaded with it, in place."""

    path: Path
    average: dict[str, Tensor]
    every: int = 100  # steps

    def save(self, step: int, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Write everything that the steps after the first `step` need, atomically."""
        state = {
            "step": step,
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": self.average,
        }
        with atomic_path(self.path) as temporary:
            torch.save(state, temporary)

    def load(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Restore the file, if there is one, and return the number of steps it has done."""
        if not self.path.exists():
            return 0
        state = torch.load(self.path, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        self.average.update(state["average"])
        return state["step"]


def fit_network(
    name: str,
    network: nn.Module,
    loss: Callable[[int], Tensor],
    fit: Fit,
    *,
    learning_rate: float,
    average: dict[str, Tensor] | None = None,
) -> None:
    """Train with AdamW, warm-up and cosine decay; `loss(step)` draws its own batch from (seed, step).

    `average` is what `loss` keeps from step to step: it belongs to the checkpoint.
    """
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=1e-3, betas=(0.9, 0.98))
    checkpoint = Checkpoint(fit.checkpoint, average or {}) if fit.checkpoint else None
    first = checkpoint.load(network, optimizer) if checkpoint else 0
    start, total, count = time.perf_counter(), 0.0, 0
    with progress_bar(f"train {name}", fit.steps) as advance:
        for step in range(first, fit.steps):
            optimizer.param_groups[0]["lr"] = learning_rate * _schedule(step, fit.steps)
            value = loss(step)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            total, count = total + value.item(), count + 1
            if (step + 1) % 100 == 0 or step + 1 == fit.steps:
                seconds = round(time.perf_counter() - start, 1)
                row = {"network": name, "step": step + 1, "loss": round(total / count, 5), "seconds": seconds}
                fit.log(row)
                total, count = 0.0, 0
            if checkpoint and (step + 1) % checkpoint.every == 0:
                checkpoint.save(step + 1, network, optimizer)
            advance(1)
    network.eval()


def _schedule(step: int, steps: int) -> float:
    """Return the learning rate's factor: 100 steps of warm-up, then half a cosine down to 2 %."""
    return min(1.0, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


@torch.no_grad()
def update_average(average: dict[str, Tensor], network: nn.Module, step: int, limit: float) -> None:
    """Move the average of the weights after `step` steps; its decay rises from 2/11 to `limit`."""
    decay = min(limit, (step + 1) / (step + 10))
    for key, value in network.state_dict().items():
        average[key].lerp_(value, 1 - decay)


def json_log(path: Path) -> Log:
    """Return a log that appends one JSON object per line to a file."""

    def log(row: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    return log
