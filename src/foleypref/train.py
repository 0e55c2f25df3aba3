"""Stage 6, train: pairs -> a tuned network. The loop cannot tell one objective from another.

All randomness is a function of (seed, step), so a run that is killed and started again gives the same result,
bit for bit on the CPU. It runs in one process, or in several under `torchrun` (`accelerate launch --cpu`
starts only one).
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
from foleypref.models.sharding import is_sharded, unshard
from foleypref.models.tools import with_network
from foleypref.training import checkpoints, stopping
from foleypref.training.held_out import evaluate_held_out, update_verdict
from foleypref.training.inputs import split_data
from foleypref.training.log import Pace, read_metrics
from foleypref.training.objectives import Loss
from foleypref.training.run import Run, make_run, whole_policy
from foleypref.training.settings import TrainSettings, check_settings, exports_only_adapters
from foleypref.training.start import save_checkpoint, start
from foleypref.workspace.paths import RunFiles
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import progress_bar, say

__all__ = ["TrainResult", "TrainSettings", "learning_rate", "train"]

INITIAL_LOSS_TOLERANCE = 1e-3


@dataclass(frozen=True)
class TrainResult:
    """Where a finished run is, the weights it tuned (for `with_weights`), the steps it did, its last logs."""

    folder: Path
    weights: Path
    steps: int
    logs: dict[str, Any]
    stopped: str = ""  # why it ended before its last step
    exported_step: int = 0  # the step that the weights are of


def train(workspace: Workspace, settings: TrainSettings) -> TrainResult:
    """Tune the model, go on where a killed run stopped, or return the result of a finished one.

    Writes runs/<run_name>/: settings.json, metrics.jsonl, tensorboard/, checkpoint-<step>/, model.safetensors
    (adapters merged), adapter/ (for a LoRA run) and, last, result.json. Raises ValueError for pairs that do
    not fit the model, for a folder that holds a run with other settings, pairs or initial weights, and for a
    loss that is not finite.
    """
    folder = workspace.run_folder(settings.run_name)
    data, held_out = split_data(workspace, settings)
    check_settings(folder, settings)
    if RunFiles(folder).result.exists():
        stored = json.loads(RunFiles(folder).result.read_text())
        num_processes = int(os.environ.get("WORLD_SIZE", "1"))  # there is no accelerator yet to ask
        batch_size = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
        identity = {**data.identity(), "global_batch_size": batch_size * num_processes}
        checkpoints.refuse_another(folder, {key: stored["identity"].get(key) for key in identity}, identity)
        say(f"train: run {settings.run_name!r} is finished, skipped")
        return _read_result(folder)
    accelerator = Accelerator(mixed_precision="no")  # bf16 is our own autocast, the same for the reference
    main = accelerator.is_main_process
    with workspace.lock(f"train-{settings.run_name}") if main else nullcontext():
        run = make_run(workspace, settings, accelerator, data, held_out=held_out)
        start(run)
        _loop(run)
        return _finish(run)


def _loop(run: Run) -> None:
    s, batch_size = run.settings, run.context.layout.global_batch_size
    pace = Pace(run.step, s.max_steps, batch_size)
    if run.step == 0:
        _write(run, evaluate_held_out(run))
    update_verdict(run)
    with progress_bar("train", s.max_steps if run.log is not None else 0) as advance:
        advance(run.step)
        while run.step < s.max_steps and not run.verdict.reason:
            _train_step(run)
            run.step += 1
            values: dict[str, float] = {}
            if run.due(s.logging_steps):
                run.meter.reduce()
                values |= run.meter.take() | pace.read(run.step)
                values["compute/forwards"] = run.step * batch_size * run.objective.forwards
            if run.due(s.eval_steps):
                values |= evaluate_held_out(run)
            _write(run, values)
            if run.due(s.eval_steps):
                update_verdict(run)
            if run.due(s.save_steps):
                save_checkpoint(run)
            advance(1)


def _train_step(run: Run) -> None:
    s, network = run.settings, run.policy.network
    # for networks that draw from the global generator; ours is (seed, step)
    torch.manual_seed(seed_of(s.seed, "train", run.step, run.context.layout.rank))
    rate = learning_rate(s, run.step)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    with run.autocast():  # rollouts in the same precision as the loss
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
    norm = unshard(torch.nn.utils.clip_grad_norm_(network.parameters(), s.max_grad_norm or float("inf")))
    _check(run, batches, losses, norm.item())
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    if run.ema is not None:
        run.ema.update_parameters(run.bare.network)
    for loss in losses:
        run.meter.add(loss.logs)
    if run.accelerator.is_main_process:  # once per step, however many processes take part
        run.meter.add({"grad_norm": norm.item(), "learning_rate": rate})


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Return the learning rate of a step (from 0): linear warm-up over `warmup_steps`, then constant."""
    return settings.learning_rate * min(1.0, (step + 1) / max(settings.warmup_steps, 1))


def _check(run: Run, batches: Sequence[Any], losses: Sequence[Loss], norm: float) -> None:
    """Raise a ValueError before a bad step reaches the weights, and write its item ids beside the metrics."""
    values = [loss.value.item() for loss in losses]
    if not torch.tensor([norm, *values]).isfinite().all():
        ids = [i for batch in batches for i in getattr(batch, "item_ids", ())]
        name = f"failed-step-{run.step}-{run.context.layout.rank}.json"
        dump = {"step": run.step, "losses": str(values), "grad_norm": str(norm), "item_ids": ids}
        write_atomic(run.folder / name, json.dumps(dump, indent=1).encode())
        raise ValueError(
            f"step {run.step}: loss {values} with gradient norm {norm} is not finite; its pairs are in "
            f"{run.folder / name}; lower learning_rate or beta, or look at those latents"
        )
    known, mean = run.objective.initial_loss(run.bare.spec), sum(values) / len(values)
    if run.step == 0 and known is not None and abs(mean - known) > INITIAL_LOSS_TOLERANCE:
        raise ValueError(
            f"the loss at step 0 is {mean:.6f}, it must be {known:.6f} while policy = reference; the model "
            "gives two answers to one question (randomness inside velocity?)"
        )


def _write(run: Run, values: dict[str, float]) -> None:
    """Log the values of a step and print the most telling ones, on process 0."""
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


def _finish(run: Run) -> TrainResult:
    """Export the weights (their moving average, if there is one), then end the run with result.json."""
    shards = trained_state(run.bare.network) if is_sharded(run.bare.network) else None
    if run.log is not None:
        run.log.close()
        logs, stopped, exported = read_metrics(run.folder)[-1], run.verdict.reason, run.step
        tuned = run.bare if run.ema is None else with_network(run.bare, run.ema.module)
        if shards is not None:
            tuned = whole_policy(run.settings, run.objective, shards)
        if stopped:
            exported = run.verdict.last_good_step
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
    """Write adapters, whole weights, or both, as the settings ask; return the name to load the model with."""
    files = RunFiles(run.folder)
    if run.settings.use_peft:
        save_adapters(tuned.network, files.adapter)
        if exports_only_adapters(run.settings):
            return files.adapter.name
        tuned = with_network(tuned, merged(tuned.network))
    with atomic_path(files.weights, suffix=files.weights.suffix) as temporary:
        tuned.export(str(temporary))
    return files.weights.name


def _read_result(folder: Path) -> TrainResult:
    stored = json.loads(RunFiles(folder).result.read_text())
    return TrainResult(
        folder=folder,
        weights=checkpoints.tuned_weights(folder),
        steps=stored["steps"],
        logs=stored["logs"],
        stopped=stored.get("stopped", ""),
        exported_step=stored.get("exported_step", stored["steps"]),
    )
