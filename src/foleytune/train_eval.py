"""What a run says of the items it holds out, at its start and every so many steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch

from foleytune.runlog import Meter
from foleytune.sharding import is_sharded
from foleytune.training_run import Run


@torch.no_grad()
def evaluate_held_out(run: Run) -> dict[str, float]:
    """Logs on the held-out pairs under `eval/`, of the policy as it is (never of its moving average)."""
    meter = Meter()
    # the bare network: processes may hold different numbers of batches, and DDP would wait for the missing
    batches = run.objective.eval_batches(run.held_out, run.bare)
    if run.errors is not None:
        batches = run.errors.attach_held_out(batches)
    with run.autocast():
        for batch, counts in _in_step(run, batches):
            loss = run.objective.loss(run.bare, run.reference, batch)
            if counts:
                meter.add(loss.logs)
    meter.reduce()
    return {f"eval/{key}": value for key, value in meter.take().items()}


def _in_step(run: Run, batches: Iterable[Any]) -> Iterable[tuple[Any, bool]]:
    """Batches, and whether each counts: shares of a network run together, so every process does as many."""
    if not is_sharded(run.bare.network):
        return ((batch, True) for batch in batches)
    own = list(batches)
    most = int(run.accelerator.gather(torch.tensor([len(own)], device=run.context.device)).max())
    spare = own[-1:]
    if most and not own:  # fewer batches than processes: the first one has some
        spare = list(run.objective.eval_batches(replace(run.held_out, rank=0), run.bare))[:1]
    return [(batch, True) for batch in own] + [(batch, False) for batch in spare * (most - len(own))]
