"""The start of a run: precomputed errors, the newest checkpoint, the DDP wrapper, the first lines printed."""

from __future__ import annotations

from typing import Any

import torch

from foleypref.media.files import write_atomic
from foleypref.models.sharding import is_sharded
from foleypref.models.tools import with_network
from foleypref.training.log import RunLog
from foleypref.training.objectives import PrecomputableObjective
from foleypref.training.reference_errors import ReferenceErrors
from foleypref.training.resume import resume
from foleypref.training.run import Run
from foleypref.workspace.paths import RunFiles
from foleypref.workspace.records import digest
from foleypref.workspace.walk import say


def start(run: Run) -> None:
    """Go on from the newest checkpoint if there is one, write settings.json, and say what runs."""
    settings, accelerator = run.settings, run.accelerator
    if settings.precompute_reference_errors:
        run.errors = _precompute(run)
    resume(run)
    if not is_sharded(run.bare.network):
        run.policy = with_network(run.bare, accelerator.prepare_model(run.bare.network))
    if accelerator.is_main_process:
        write_atomic(RunFiles(run.folder).settings, settings.model_dump_json(indent=1).encode())
        run.log = RunLog(run.folder, run.step, settings.tensorboard)
        _announce(run)


def _precompute(run: Run) -> ReferenceErrors:
    """Compute the reference's errors of every step; nothing is resumed yet, so the policy is the reference.

    Raises ValueError for an objective that needs more of the reference than errors.
    """
    s, objective, context = run.settings, run.objective, run.context
    if not isinstance(objective, PrecomputableObjective):
        raise ValueError(
            f"precompute_reference_errors: {s.objective.part_name()} has no errors to precompute; "
            "leave it off"
        )
    layout = [s.per_device_train_batch_size, s.gradient_accumulation_steps, context.layout.num_processes]
    drawn: list[Any] = [objective.reference_settings(), s.curriculum.settings(), s.seed, s.max_steps]
    if s.negatives is not None:
        drawn.append(s.negatives.model_dump(mode="json"))
    key = digest(run.identity, run.held_out_id, layout, run.bare.feature_key, drawn, s.bf16)
    errors = ReferenceErrors(context.workspace.reference_errors / key, context.layout.rank)

    def measure(batch: Any) -> dict[str, torch.Tensor]:
        with run.autocast():
            return objective.reference_errors(run.bare, batch)

    done = errors.compute(
        s.max_steps,
        lambda step: run.objective.batches(context, step, run.bare),
        lambda: run.objective.eval_batches(run.held_out, run.bare),
        measure,
    )
    if run.accelerator.is_main_process:
        say(f"reference errors: {done} steps done, {s.max_steps - done} found in {errors.folder}")
    return errors


def _announce(run: Run) -> None:
    s, context = run.settings, run.context
    size = sum(p.numel() for p in run.bare.network.parameters() if p.requires_grad)
    name, device = s.model.part_name(), context.layout.device
    say(f"train: run {s.run_name!r}, {name} with {size:,} trained parameters on {device}")
    say(f"  {run.objective.summary(run.bare.spec)}")
    if context.data.pairs:
        say(f"  {context.curriculum.summary(context.data.pairs, s.max_steps)}")
    if context.rules is not None:
        severities = [context.curriculum.severity(step, s.max_steps) for step in (0, s.max_steps - 1)]
        say(f"  {context.rules.summary(severities, context.layout.global_batch_size)}")
    say(f"  {context.data.counts()}; held out: {run.held_out.data.counts()}")
    say(f"  effective batch {context.layout.global_batch_size}")
    if s.stop.limits():
        say(f"  {s.stop.summary()}")
    if run.step:
        say(f"  goes on after step {run.step}")
