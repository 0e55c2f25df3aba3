"""Held-out evaluation of a run, and what it decides: whether the run goes on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import broadcast_object_list

from foleypref.models.lora import trained_state
from foleypref.models.sharding import is_sharded
from foleypref.training import stopping
from foleypref.training.log import Meter, read_metrics
from foleypref.training.run import Run


@torch.no_grad()
def evaluate_held_out(run: Run) -> dict[str, float]:
    """Return the mean logs on held-out batches under `eval/`, of the policy (never of its moving average)."""
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
    """Return (batch, counts) pairs. If the network is sharded, all processes must run equally many forwards.

    Processes with fewer batches then repeat one that does not count.
    """
    if not is_sharded(run.bare.network):
        return ((batch, True) for batch in batches)
    own = list(batches)
    most = int(run.accelerator.gather(torch.tensor([len(own)], device=run.context.layout.device)).max())
    spare = own[-1:]
    if most and not own:  # fewer batches than processes, so rank 0 has some
        first = replace(run.held_out, layout=replace(run.held_out.layout, rank=0))
        spare = list(run.objective.eval_batches(first, run.bare))[:1]
    return [(batch, True) for batch in own] + [(batch, False) for batch in spare * (most - len(own))]


def update_verdict(run: Run) -> None:
    """Set `run.verdict` by the evaluations so far, the same on every process.

    If every number is within its limits, the weights of this step are stored. Call it once before a run goes
    on, because it also removes weights that a killed run had stored at later steps.
    """
    settings = run.settings.stop
    if not settings.limits():
        return
    shared = [run.verdict]
    if run.accelerator.is_main_process:
        lines = read_metrics(run.folder)
        stopping.check_limits(settings, lines[0] if lines else {})
        shared = [stopping.judge(settings, lines)]
        stopping.forget(run.folder, after=run.step)
    broadcast_object_list(shared)
    run.verdict = shared[0]
    if run.verdict.last_good_step == run.step and not run.verdict.reason:
        state = trained_state(run.bare.network if run.ema is None else run.ema.module)
        if run.accelerator.is_main_process:
            stopping.keep(run.folder, run.step, state)
