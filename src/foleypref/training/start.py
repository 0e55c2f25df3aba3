"""The start of a run, from the newest checkpoint if there is one, and the writing of checkpoints."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from foleypref.media.files import write_atomic
from foleypref.models.lora import load_trained_state, trained_state
from foleypref.models.sharding import is_sharded, load_optimizer_state, optimizer_state
from foleypref.models.tools import fingerprint_of, with_network
from foleypref.training import checkpoints
from foleypref.training.log import RunLog
from foleypref.training.objectives import PrecomputableObjective, StatefulObjective
from foleypref.training.reference_errors import ReferenceErrors
from foleypref.training.run import Run
from foleypref.workspace.paths import RunFiles
from foleypref.workspace.records import digest
from foleypref.workspace.walk import say


def start(run: Run) -> None:
    """Go on from the newest checkpoint if any, write settings.json, say what runs; every process calls it."""
    settings, accelerator = run.settings, run.accelerator
    if settings.precompute_reference_errors:
        run.errors = _precompute(run)
    _resume(run)
    if not is_sharded(run.bare.network):
        run.policy = with_network(run.bare, accelerator.prepare_model(run.bare.network))
    if accelerator.is_main_process:
        write_atomic(RunFiles(run.folder).settings, settings.model_dump_json(indent=1).encode())
        run.log = RunLog(run.folder, run.step, settings.tensorboard)
        _announce(run)


def _resume(run: Run) -> None:
    """Set the run to its newest checkpoint, if it has any. Raises ValueError if it is another run's."""
    checkpoint = checkpoints.load(run.folder)
    if checkpoint is None:
        return
    checkpoints.refuse_another(run.folder, checkpoint.identity, run.identity)
    load_trained_state(run.bare.network, checkpoint.networks["network"])
    load_optimizer_state(run.optimizer, checkpoint.optimizer)
    if run.ema is not None:
        run.ema.load_state_dict(checkpoint.networks["ema"])
    if isinstance(run.objective, StatefulObjective):
        state = checkpoint.networks.get("objective", {})
        if not run.objective.shared_state:
            state = {key: run.context.layout.own(value) for key, value in state.items()}
        if state:
            run.objective.restore(state, run.bare)
    if run.accelerator.is_main_process:
        run.meter.restore(checkpoint.logs)
    run.step = checkpoint.step


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

    def measure(batch: Any) -> dict[str, Tensor]:
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


def save_checkpoint(run: Run) -> None:
    """Write the run's state; every process calls it. Raises ValueError if the reference has changed."""
    if run.reference is not None and fingerprint_of(run.reference.network) != run.identity["reference"]:
        raise ValueError(f"step {run.step}: the reference's weights have changed; something trains it too")
    run.meter.reduce()
    state: dict[str, Tensor] = {}
    if isinstance(run.objective, StatefulObjective):
        state = run.objective.state()
        if not run.objective.shared_state:  # the rows of all processes, in the global order
            state = {key: run.context.layout.gather(state[key]) for key in sorted(state)}
    trained, moments = trained_state(run.bare.network), optimizer_state(run.optimizer)
    if run.accelerator.is_main_process:
        networks = {"network": trained}
        if state:
            networks["objective"] = state
        if run.ema is not None:
            networks["ema"] = run.ema.state_dict()
        checkpoint = checkpoints.Checkpoint(run.step, run.identity, networks, moments, logs=run.meter.state())
        checkpoints.save(run.folder, checkpoint, run.settings.save_total_limit)
    run.accelerator.wait_for_everyone()
