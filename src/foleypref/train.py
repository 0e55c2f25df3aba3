"""Stage 6, train: pairs -> a tuned network. The loop cannot tell one objective from another.

Everything random is a function of (seed, step), so a run that is killed and started again is the same run,
bit for bit on the CPU. One process, or several under `torchrun` (`accelerate launch --cpu` runs only one).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from foleypref.flow.convention import seed_of
from foleypref.media.files import atomic_path, write_atomic
from foleypref.models.backbones import Model
from foleypref.models.lora import merged, save_adapters, trained_state
from foleypref.models.sharding import is_sharded, optimizer_state, whole
from foleypref.models.tools import fingerprint_of, with_network
from foleypref.training import checkpoints, stopping
from foleypref.training.context import split_data
from foleypref.training.log import Pace, read_metrics
from foleypref.training.networks import whole_policy
from foleypref.training.objectives import Loss
from foleypref.training.run import Run, evaluate_held_out, look, make_run, objective_state, start
from foleypref.training.settings import TrainSettings, adapters_alone, check_settings
from foleypref.workspace.paths import RunFiles
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import progress_bar, say

__all__ = ["TrainResult", "TrainSettings", "learning_rate", "train"]

INITIAL_LOSS_TOLERANCE = 1e-3


@dataclass(frozen=True)
class TrainResult:
    """Where a run is, what it tuned (for `model_tools.with_weights`), steps done, last logs.

    `stopped` says why it ended before its last step, or is ""; `exported_step` is whose weights they are.
    """

    folder: Path
    weights: Path
    steps: int
    logs: dict[str, Any]
    stopped: str = ""
    exported_step: int = 0


def train(workspace: Workspace, settings: TrainSettings) -> TrainResult:
    """Tune the model, or go on where a killed run stopped, or return what a finished one left.

    Writes runs/<run_name>/: settings.json, metrics.jsonl, tensorboard/, checkpoint-<step>/, model.safetensors
    (adapters merged), adapter/ (of a LoRA run) and, last, result.json. Raises ValueError for pairs that do
    not fit the model, for a folder that holds a run with other settings, pairs or initial weights, and for a
    loss that is not finite.
    """
    folder = workspace.run_folder(settings.run_name)
    data, held_out = split_data(workspace, settings)
    check_settings(folder, settings)
    if RunFiles(folder).result.exists():
        stored = json.loads(RunFiles(folder).result.read_text())
        identity = {**data.identity(), "global_batch_size": _global_batch_size(settings)}
        checkpoints.refuse_another(folder, {key: stored["identity"].get(key) for key in identity}, identity)
        say(f"train: run {settings.run_name!r} is finished, skipped")
        return _read_result(folder)
    accelerator = Accelerator(mixed_precision="no")  # bf16 is our own autocast, the same for the reference
    main = accelerator.is_main_process
    with workspace.lock(f"train-{settings.run_name}") if main else nullcontext():
        run = make_run(workspace, settings, accelerator, data, held_out)
        start(run)
        _loop(run)
        return _finish(run)


def _global_batch_size(settings: TrainSettings) -> int:
    """Items a step takes over all processes, before there is an accelerator that knows how many there are."""
    num_processes = int(os.environ.get("WORLD_SIZE", "1"))
    return settings.per_device_train_batch_size * settings.gradient_accumulation_steps * num_processes


def _loop(run: Run) -> None:
    s = run.settings
    pace = Pace(run.step, s.max_steps, run.context.global_batch_size)
    if run.step == 0:
        _write(run, evaluate_held_out(run))
    run.verdict = look(run)
    with progress_bar("train", s.max_steps if run.log is not None else 0) as advance:
        advance(run.step)
        while run.step < s.max_steps and not run.verdict.reason:
            _train_step(run)
            run.step += 1
            values: dict[str, float] = {}
            if run.due(s.logging_steps):
                run.meter.reduce()
                values |= run.meter.take() | pace.read(run.step)
                values["compute/forwards"] = run.step * run.context.global_batch_size * run.objective.forwards
            if run.due(s.eval_steps):
                values |= evaluate_held_out(run)
            _write(run, values)
            if run.due(s.eval_steps):
                run.verdict = look(run)
            if run.due(s.save_steps):
                _save(run)
            advance(1)


def _train_step(run: Run) -> None:
    s, network = run.settings, run.policy.network
    # for networks that draw from the global generator; ours is (seed, step)
    torch.manual_seed(seed_of(s.seed, "train", run.step, run.context.rank))
    rate = learning_rate(s, run.step)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    with run.autocast():  # rollouts in the precision that the loss has
        batches = run.objective.batches(run.context, run.step, run.policy)
    if run.errors is not None:
        batches = run.errors.attach(run.step, s.max_steps, batches)
    losses = []
    for index, batch in enumerate(batches):
        last = index == len(batches) - 1
        with nullcontext() if last else run.accelerator.no_sync(network):
            with run.autocast():
                loss = run.objective.loss(run.policy, run.reference, batch)
            (loss.value / len(batches)).backward()
        losses.append(loss)
    norm = whole(torch.nn.utils.clip_grad_norm_(network.parameters(), s.max_grad_norm or float("inf")))
    _check(run, batches, losses, norm.item())
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    if run.ema is not None:
        run.ema.update_parameters(run.bare.network)
    for loss in losses:
        run.meter.add(loss.logs)
    if run.accelerator.is_main_process:  # once a step, however many processes do it
        run.meter.add({"grad_norm": norm.item(), "learning_rate": rate})


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Linear warm-up over `warmup_steps`, then constant; a function of the step (from 0) alone."""
    return settings.learning_rate * min(1.0, (step + 1) / max(settings.warmup_steps, 1))


def _check(run: Run, batches: Sequence[Any], losses: Sequence[Loss], norm: float) -> None:
    """Stop before a bad step reaches the weights; what was in it is dumped beside the metrics."""
    values = [loss.value.item() for loss in losses]
    if not torch.tensor([norm, *values]).isfinite().all():
        ids = [i for batch in batches for i in getattr(batch, "item_ids", ())]
        name = f"failed-step-{run.step}-{run.context.rank}.json"
        dump = {"step": run.step, "losses": str(values), "grad_norm": str(norm), "item_ids": ids}
        write_atomic(run.folder / name, json.dumps(dump, indent=1).encode())
        raise ValueError(
            f"step {run.step}: loss {values} with gradient norm {norm} is not finite; its pairs are in "
            f"{run.folder / name}; lower learning_rate or beta, or look at those latents"
        )
    known = run.objective.initial_loss(run.bare.spec)
    if (
        run.step == 0
        and known is not None
        and abs(sum(values) / len(values) - known) > INITIAL_LOSS_TOLERANCE
    ):
        raise ValueError(
            f"the loss at step 0 is {sum(values) / len(values):.6f}, it must be {known:.6f} while policy = "
            "reference; the model gives two answers to one question (randomness inside velocity?)"
        )


def _write(run: Run, values: dict[str, float]) -> None:
    if run.log is None or not values:
        return
    run.log.write(run.step, values)
    shown = ("loss", "reward", "rewards/accuracies", "eval/loss", "eval/reward", "eval/rewards/accuracies")
    text = "  ".join(f"{key} {values[key]:.4g}" for key in shown if key in values)
    if "time/left_s" in values:
        text += (
            f"  {values['time/steps_per_s']:.2f} steps/s  {values['time/pairs_per_s']:.1f} pairs/s"
            f"  {values['time/left_s']:.0f} s left"
        )
    say(f"  step {run.step}/{run.settings.max_steps}  {text}")


def _save(run: Run) -> None:
    if run.reference is not None and fingerprint_of(run.reference.network) != run.identity["reference"]:
        raise ValueError(f"step {run.step}: the reference's weights have changed; something trains it too")
    run.meter.reduce()
    state = objective_state(run)
    trained, moments = trained_state(run.bare.network), optimizer_state(run.optimizer)
    if run.accelerator.is_main_process:
        networks = {"network": trained}
        if state:
            networks["objective"] = state
        if run.ema is not None:
            networks["ema"] = run.ema.state_dict()
        checkpoint = checkpoints.Checkpoint(run.step, run.identity, networks, moments, run.meter.state())
        checkpoints.save(run.folder, checkpoint, run.settings.save_total_limit)
    run.accelerator.wait_for_everyone()


def _finish(run: Run) -> TrainResult:
    """Export the weights (their moving average, if there is one), then result.json, which ends the run."""
    shares = trained_state(run.bare.network) if is_sharded(run.bare.network) else None
    if run.log is not None:
        run.log.close()
        logs, stopped, exported = read_metrics(run.folder)[-1], run.verdict.reason, run.step
        tuned = run.bare if run.ema is None else with_network(run.bare, run.ema.module)
        if shares is not None:
            tuned = whole_policy(run.settings, run.objective, shares)
        if stopped:
            exported = run.verdict.kept_step
            stopping.restore_kept(tuned.network, run.folder, exported)
            run.log.stopped(run.step, stopped, exported)
            say(f"train: {stopped}; the weights of step {exported} are exported")
        weights = _export(run, tuned)
        result = {"steps": run.step, "stopped": stopped, "exported_step": exported, "weights": weights}
        result |= {"identity": run.identity, "logs": logs}
        write_atomic(RunFiles(run.folder).result, json.dumps(result, indent=1).encode())
        stopping.forget(run.folder)
    run.accelerator.wait_for_everyone()
    return _read_result(run.folder)


def _export(run: Run, tuned: Model) -> str:
    """Write adapters and whole weights, or what of them is wanted; returns what to load the model with."""
    files = RunFiles(run.folder)
    if run.settings.use_peft:
        save_adapters(tuned.network, files.adapter)
        if adapters_alone(run.settings):
            return files.adapter.name
        tuned = with_network(tuned, merged(tuned.network))
    with atomic_path(files.weights, suffix=files.weights.suffix) as temporary:
        tuned.export(str(temporary))
    return files.weights.name


def _read_result(folder: Path) -> TrainResult:
    stored = json.loads(RunFiles(folder).result.read_text())
    end = stored.get("stopped", ""), stored.get("exported_step", stored["steps"])
    return TrainResult(folder, checkpoints.tuned_weights(folder), stored["steps"], stored["logs"], *end)
