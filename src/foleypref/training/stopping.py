"""When training ends before its last step: if a held-out number leaves its limits and stays outside.

    above, below                        the number itself
    rises_by, falls_by                  as a share of its value at step 0
    rises_from_best, falls_from_best    as a share of the best value so far: the lowest, the highest

The same rule serves a winners' error that rises (`eval/flow/winner_err`) and a watched judge that falls while
the reward rises (`eval/watch/…`). The verdict is a function of metrics.jsonl, so a resumed run and every
process reach the same one. A stopped run exports the policy of the last evaluation at which every number was
within its limits; until then RUN/kept-<step>.safetensors holds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field
from safetensors.torch import load_file, save
from torch import Tensor, nn

from foleypref.media.files import write_atomic
from foleypref.models.lora import load_trained_state
from foleypref.settings.nearest import nearest
from foleypref.settings.parts import Settings
from foleypref.training import checkpoints

_KEPT = re.compile(r"kept-(\d+)\.safetensors")
_UPPER = ("above", "rises_by", "rises_from_best")


class StopSettings(Settings):
    """Limits, by the metric's name in metrics.jsonl. Without any, a run takes all its steps."""

    above: dict[str, float] = Field(default_factory=dict)
    below: dict[str, float] = Field(default_factory=dict)
    rises_by: dict[str, float] = Field(default_factory=dict)  # 0.02: by 2 % of |value at step 0|
    falls_by: dict[str, float] = Field(default_factory=dict)
    rises_from_best: dict[str, float] = Field(default_factory=dict)  # 0.1: by 10 % of |the lowest so far|
    falls_from_best: dict[str, float] = Field(default_factory=dict)
    patience: int = Field(1, ge=1)  # evaluations in a row at which a metric must be outside

    def limits(self) -> list[tuple[str, str, float]]:
        """Return (kind, metric, amount) of every limit."""
        kinds = [name for name in type(self).model_fields if name != "patience"]
        return [(kind, metric, amount) for kind in kinds for metric, amount in getattr(self, kind).items()]

    def summary(self) -> str:
        """Return all limits in one line for the start of a run; "" if there are none."""
        rules = [f"{metric} {kind.replace('_', ' ')} {amount:g}" for kind, metric, amount in self.limits()]
        return f"stops where {' or '.join(rules)}, {self.patience} evaluations in a row" if rules else ""


@dataclass(frozen=True)
class Verdict:
    """The consequence of the evaluations so far."""

    reason: str = ""  # why training ends; "" if it goes on
    last_good_step: int = 0  # the last evaluation at which every number was within its limits


def judge(settings: StopSettings, lines: Iterable[Mapping[str, Any]]) -> Verdict:
    """Return the verdict on the lines of metrics.jsonl, in order. A value that is not finite is outside."""
    limits, last_good_step = settings.limits(), 0
    seen: dict[str, list[float]] = {}  # finite values by metric
    outside = dict.fromkeys(limits, 0)  # evaluations in a row
    for line in lines:
        measured = [limit for limit in limits if limit[1] in line]
        for limit in measured:
            kind, metric, amount = limit
            value = line[metric]
            if value is not None:
                seen.setdefault(metric, []).append(value)
            bound = _bound(kind, seen.get(metric, [0.0]), amount)
            out = value is None or (value > bound if kind in _UPPER else value < bound)
            outside[limit] = outside[limit] + 1 if out else 0
            if outside[limit] == settings.patience:
                return Verdict(_reason(settings, limit, line, bound), last_good_step)
        if measured and not any(outside.values()):
            last_good_step = line["step"]
    return Verdict("", last_good_step)


def _bound(kind: str, seen: Sequence[float], amount: float) -> float:
    if kind in ("above", "below"):
        return amount
    best = max(seen) if kind == "falls_from_best" else min(seen)
    start = best if kind.endswith("from_best") else seen[0]
    return start + (amount if kind in _UPPER else -amount) * abs(start)


def _reason(
    settings: StopSettings, limit: tuple[str, str, float], line: Mapping[str, Any], bound: float
) -> str:
    kind, metric, amount = limit
    side = "above" if kind in _UPPER else "below"
    state = "is not finite" if line[metric] is None else f"is {line[metric]:.4g}, {side} {bound:.4g}"
    rule = kind if kind in ("above", "below") else f"{kind} {amount:g}"
    times = f" at {settings.patience} evaluations in a row" if settings.patience > 1 else ""
    return f"{metric} {state}{times} (stop.{rule}, step {line['step']})"


def check_limits(settings: StopSettings, first: Mapping[str, Any]) -> None:
    """Raise a ValueError if the evaluation of step 0 lacks a metric or is outside a limit already."""
    for kind, metric, _ in settings.limits():
        if metric not in first:
            known = sorted(key for key in first if key.startswith("eval/"))
            raise ValueError(
                f"stop.{kind}: the evaluation at step 0 has no {metric!r}; {nearest(metric, known)} "
                "(num_eval_pairs 0 has none)"
            )
        if kind in ("rises_by", "falls_by") and not first[metric]:
            raise ValueError(
                f"stop.{kind}: {metric} is 0 at step 0, a share of which is 0; use above or below"
            )
    if reason := judge(settings.model_copy(update={"patience": 1}), [first]).reason:
        raise ValueError(f"stop: the untuned model is outside already: {reason}; choose a wider limit")


def keep(folder: Path, step: int, state: Mapping[str, Tensor]) -> None:
    """Write the weights of a step, and remove those that neither this run nor a resumed one can need."""
    write_atomic(kept_path(folder, step), save(checkpoints.separate(state)))
    newest = max(checkpoints.steps(folder), default=0)  # from which a killed run would go on
    before = max((s for s in kept_steps(folder) if s <= newest), default=step)
    for other in kept_steps(folder):
        if other not in (step, before):
            kept_path(folder, other).unlink()


def restore_kept(network: nn.Module, folder: Path, step: int) -> None:
    """Load the weights that were kept at a step. Raises ValueError if they are gone."""
    path = kept_path(folder, step)
    if not path.exists():
        raise ValueError(f"{path} is missing: the weights to export; delete {folder} to start over")
    load_trained_state(network, load_file(path))


def forget(folder: Path, *, after: int = -1) -> None:
    """Remove the weights kept at steps after `after`; by default all, as a finished run does."""
    for step in [step for step in kept_steps(folder) if step > after]:
        kept_path(folder, step).unlink()


def kept_steps(folder: Path) -> list[int]:
    """Return the steps whose weights are kept, in order."""
    return sorted(int(m[1]) for path in folder.glob("kept-*") if (m := _KEPT.fullmatch(path.name)))


def kept_path(folder: Path, step: int) -> Path:
    """Return the path of the weights kept at a step."""
    return folder / f"kept-{step}.safetensors"
