"""Checkpoints of a training run: whole or absent, and never another run's.

    RUN/checkpoint-<step>/network.safetensors    weights and buffers of the policy, as trained
                          ema.safetensors        their moving average, if the run keeps one
                          objective.safetensors  what the objective remembers, if it does: rollouts of
                                                 all processes, weights of an older policy
                          optimizer.pt           read with weights_only=True
                          state.json             step, identity, sums of logs not yet written

A checkpoint is written beside its place, synced and renamed, so a folder with the right name is whole.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from foleypref.media.files import PARTIAL, atomic_folder
from foleypref.workspace.paths import RunFiles

_NAME = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to go on as if it had never stopped."""

    step: int  # steps done
    identity: dict[str, Any]  # what must not change while a run lasts: see `refuse_another`
    networks: dict[str, dict[str, Tensor]]  # state dicts: "network", and "ema" and "objective" if kept
    optimizer: dict[str, Any]
    logs: dict[str, list[float]]  # `Meter.state()`


def save(run: Path, checkpoint: Checkpoint, keep: int | None = None) -> Path:
    """Write a checkpoint, remove the oldest beyond `keep`, and return its folder."""
    place = run / f"checkpoint-{checkpoint.step}"
    with atomic_folder(place) as partial:
        for name, tensors in checkpoint.networks.items():
            save_file(separate(tensors), partial / f"{name}.safetensors")
        torch.save(checkpoint.optimizer, partial / "optimizer.pt")
        state = {"step": checkpoint.step, "identity": checkpoint.identity, "logs": checkpoint.logs}
        (partial / "state.json").write_text(json.dumps(state, indent=1))
    if keep is not None:
        for step in steps(run)[:-keep]:
            leftover = run / f".checkpoint-{step}{PARTIAL}"
            # renamed first, so that a kill leaves no half checkpoint under its name
            shutil.rmtree((run / f"checkpoint-{step}").rename(leftover))
    return place


def separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to the CPU; safetensors refuses tensors that share memory, as tied weights do."""
    return {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}


def load(run: Path) -> Checkpoint | None:
    """Return a run's newest checkpoint with its tensors on the CPU, or None. Removes half-written ones."""
    for leftover in run.glob(f".*{PARTIAL}"):
        shutil.rmtree(leftover, ignore_errors=True)
    saved = steps(run)
    if not saved:
        return None
    place = run / f"checkpoint-{saved[-1]}"
    state = json.loads((place / "state.json").read_text())
    return Checkpoint(
        step=state["step"],
        identity=state["identity"],
        networks={path.stem: load_file(path) for path in place.glob("*.safetensors")},
        optimizer=torch.load(place / "optimizer.pt", map_location="cpu", weights_only=True),
        logs=state["logs"],
    )


def steps(run: Path) -> list[int]:
    """Return the steps that a run has whole checkpoints of, in order."""
    return sorted(int(m[1]) for path in run.glob("checkpoint-*") if (m := _NAME.fullmatch(path.name)))


def refuse_another(run: Path, stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise a ValueError that names the first difference, if a run's folder holds another run."""
    different = sorted(key for key in {*stored, *now} if stored.get(key) != now.get(key))
    if not different:
        return
    key, *more = different
    others = f" ({len(more)} more: {', '.join(more)})" if more else ""
    raise ValueError(
        f"run {run.name!r} was started with {key} = {stored.get(key)!r}, found {now.get(key)!r}{others}; "
        f"set it back, choose another run_name, or delete {run} to start over"
    )


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested settings with dotted keys, as `{"objective.beta": 600.0}`."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= flatten(item, f"{prefix}.{key}" if prefix else key)
    return flat


def tuned_weights(folder: Path) -> Path:
    """Return the path of the weights (or adapters) of a run. Raises ValueError if it has not ended."""
    files = RunFiles(folder)
    try:
        result = json.loads(files.result.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder} has not ended: result.json is missing; run train again") from None
    return folder / result.get("weights", files.weights.name)
