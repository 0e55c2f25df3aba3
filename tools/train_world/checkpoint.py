"""Where a long training of one network keeps itself, so that a stop costs little."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from foleypref.media.files import atomic_path


@dataclass(frozen=True)
class Checkpoint:
    """Where a training keeps itself; `average` is saved and loaded along, in place."""

    path: Path
    average: dict[str, Tensor]
    every: int = 100  # steps

    def save(self, step: int, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Write everything after `step` steps, atomically."""
        state = {
            "step": step,
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": self.average,
        }
        with atomic_path(self.path) as temporary:
            torch.save(state, temporary)

    def load(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Restore what is there; the number of steps it has done, 0 if nothing is."""
        if not self.path.exists():
            return 0
        state = torch.load(self.path, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        self.average.update(state["average"])
        return state["step"]
