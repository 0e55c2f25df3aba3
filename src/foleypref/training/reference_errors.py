"""Errors of the reference, computed once and kept on disk: training then needs no reference in memory.

The pairs, times, noises and masks of every step are a function of (seed, step), and so are the reference's
errors. They are computed for all steps before the first (TRL's `precompute_ref_log_probs`, for flows) and
written in parts that are whole or absent. Every run that draws the same reads them again: another β, learning
rate or adapter rank costs nothing.

    WORKSPACE/reference_errors/<key>/steps-<begin>-<end>-<rank>.safetensors   "<step>/<batch>/<modality>"
                                     held-out-<rank>.safetensors              "0/<batch>/<modality>"
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from foleypref.media.files import write_atomic
from foleypref.workspace.walk import progress_bar

PART_STEPS = 100  # steps per file: as many are lost at most when a run is killed

B = TypeVar("B")
Errors = dict[str, Tensor]


class ReferenceErrors:
    """The stored errors of one run on one process."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder, self.rank = folder, rank
        self._held_out_path = folder / f"held-out-{rank}.safetensors"
        self._part: tuple[int, dict[str, Tensor]] = (-1, {})

    def compute(
        self,
        max_steps: int,
        draw: Callable[[int], Iterable[Any]],
        held_out: Callable[[], Iterable[Any]],
        errors: Callable[[Any], Errors],
    ) -> int:
        """Compute every part that is missing; return how many steps were computed now.

        `draw` returns the micro-batches of a step, `held_out` the held-out ones, `errors` those of a batch.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._held_out_path.exists():
            self._write(self._held_out_path, [(0, held_out())], errors)
        begins = [b for b in range(0, max_steps, PART_STEPS) if not self._path(b, max_steps).exists()]
        done = 0
        with progress_bar("reference errors", len(begins) * PART_STEPS) as advance:
            for begin in begins:
                steps = range(begin, min(begin + PART_STEPS, max_steps))
                self._write(self._path(begin, max_steps), ((step, draw(step)) for step in steps), errors)
                done += len(steps)
                advance(PART_STEPS)
        return done

    def attach(self, step: int, max_steps: int, batches: Sequence[B]) -> list[B]:
        """Return the micro-batches of a step with their `reference_errors` set."""
        begin = step - step % PART_STEPS
        if self._part[0] != begin:
            self._part = (begin, load_file(self._path(begin, max_steps)))
        return [_with(batch, self._part[1], step, index) for index, batch in enumerate(batches)]

    def attach_held_out(self, batches: Iterable[B]) -> Iterable[B]:
        """Return the held-out batches with their `reference_errors` set."""
        stored = load_file(self._held_out_path) if self._held_out_path.exists() else {}
        return (_with(batch, stored, 0, index) for index, batch in enumerate(batches))

    def _path(self, begin: int, max_steps: int) -> Path:
        end = min(begin + PART_STEPS, max_steps)
        return self.folder / f"steps-{begin}-{end}-{self.rank}.safetensors"

    def _write(
        self, path: Path, batches: Iterable[tuple[int, Iterable[Any]]], errors: Callable[[Any], Errors]
    ) -> None:
        stored = {
            f"{step}/{index}/{modality}": error.float().cpu().contiguous()
            for step, drawn in batches
            for index, batch in enumerate(drawn)
            for modality, error in errors(batch).items()
        }
        write_atomic(path, save(stored))


def _with(batch: B, stored: dict[str, Tensor], step: int, index: int) -> B:
    prefix = f"{step}/{index}/"
    rows = {key[len(prefix) :]: value for key, value in stored.items() if key.startswith(prefix)}
    assert rows, f"no reference errors of step {step}, batch {index}"
    device = getattr(batch, "t", torch.empty(0)).device
    return replace(batch, reference_errors={k: v.to(device) for k, v in rows.items()})  # type: ignore[type-var]
