"""Writing a run's checkpoint, and going on from the newest one. Every process must call both."""

from __future__ import annotations

from torch import Tensor

from foleypref.models.lora import load_trained_state, trained_state
from foleypref.models.sharding import load_optimizer_state, optimizer_state
from foleypref.models.tools import fingerprint_of
from foleypref.training import checkpoints
from foleypref.training.objectives import StatefulObjective
from foleypref.training.run import Run


def save_checkpoint(run: Run) -> None:
    """Write the run's state. Raises ValueError if the reference is no longer what it was at the start."""
    if run.reference is not None and fingerprint_of(run.reference.network) != run.identity["reference"]:
        raise ValueError(f"step {run.step}: the reference's weights have changed; something trains it too")
    run.meter.reduce()
    state = _objective_state(run)
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


def resume(run: Run) -> None:
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


def _objective_state(run: Run) -> dict[str, Tensor]:
    """Return what the objective remembers, with the rows of all processes in the global order."""
    if not isinstance(run.objective, StatefulObjective):
        return {}
    state = run.objective.state()
    if run.objective.shared_state:
        return state
    return {key: run.context.layout.gather(state[key]) for key in sorted(state)}
