"""Arrays for training the world's networks: clips are rendered to files, then decoded like a user's videos.

They go through mp4 on purpose: the networks then see what `ingest` will show them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foleypref.flow.convention import seed_of
from foleypref.media.clip import held, read_clip
from foleypref.media.files import atomic_path
from foleypref.workspace.pool import process_pool, usable_cores
from foleypref.workspace.walk import progress_bar
from foleypref.world import CLASSES, CLIP_SECONDS, FPS, NUM_FRAMES, NUM_SAMPLES, SAMPLE_RATE
from foleypref.world.make import make
from foleypref.world.settings import MakeSettings

FRAME_SIDE = 48  # pixels the networks look at


@dataclass(frozen=True)
class Clips:
    """A split in memory-mapped arrays."""

    frames: np.ndarray  # (N, 100, 48, 48, 3) uint8
    waves: np.ndarray  # (N, 64000) float16
    rows: list[dict[str, Any]]  # the metadata, with the truth

    def __len__(self) -> int:
        return len(self.rows)

    def first(self, num: int) -> Clips:
        """Return the first `num` clips."""
        return Clips(self.frames[:num], self.waves[:num], self.rows[:num])

    def labels(self) -> np.ndarray:
        """Return the true classes as equal shares: (N, classes) float32, rows sum to 1."""
        shares = np.zeros((len(self), len(CLASSES)), np.float32)
        for row, record in zip(shares, self.rows):
            for name in record["labels"]:
                row[CLASSES.index(name)] = 1 / len(record["labels"])
        return shares


def prepare(split: str, num_clips: int, workdir: Path, seed: int) -> Clips:
    """Render and decode `num_clips` of a split under `workdir`, or open the arrays that are there."""
    folder, arrays = workdir / "clips" / split, workdir / "arrays"
    make(MakeSettings(split=split, num_clips=num_clips, out=folder, seed=seed))
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()][:num_clips]
    marker = arrays / f"{split}-{seed}-{num_clips}.done"
    frames_path, waves_path = arrays / f"{split}.frames.npy", arrays / f"{split}.waves.npy"
    if not marker.exists():
        arrays.mkdir(parents=True, exist_ok=True)
        _decode_all(folder, rows, frames_path, waves_path)
        marker.touch()
    return Clips(np.load(frames_path, mmap_mode="r"), np.load(waves_path, mmap_mode="r"), rows)


def _decode_all(folder: Path, rows: list[dict[str, Any]], frames_path: Path, waves_path: Path) -> None:
    frames = np.lib.format.open_memmap(
        frames_path, "w+", np.uint8, (len(rows), NUM_FRAMES, FRAME_SIDE, FRAME_SIDE, 3)
    )
    waves = np.lib.format.open_memmap(waves_path, "w+", np.float16, (len(rows), NUM_SAMPLES))
    paths = [str(folder / row["file_name"]) for row in rows]
    with (
        process_pool(usable_cores()) as pool,
        progress_bar("decode", len(paths)) as advance,
    ):
        for index, (picture, sound) in enumerate(pool.map(_decode, paths, chunksize=8)):
            frames[index], waves[index] = picture, sound
            advance(1)
    frames.flush()
    waves.flush()


def _decode(path: str) -> tuple[np.ndarray, np.ndarray]:
    clip = read_clip(path, duration_s=CLIP_SECONDS, fps=FPS, size=FRAME_SIDE, sample_rate=SAMPLE_RATE)
    assert clip.frames is not None
    assert clip.wave is not None
    return held(clip.frames, NUM_FRAMES), clip.wave.astype(np.float16)


def pick(num: int, batch: int, *seed: int | str) -> np.ndarray:
    """Return the row numbers of a batch as a function of the seed, sorted for the memory map."""
    generator = np.random.default_rng(seed_of(*seed))
    return np.sort(generator.choice(num, min(batch, num), replace=False))


def rows_of(array: np.ndarray, index: np.ndarray) -> Tensor:
    """Return rows of a memory map as a tensor; halves become floats."""
    rows = torch.from_numpy(np.ascontiguousarray(array[index]))
    return rows.float() if rows.dtype == torch.float16 else rows


def batches(num: int, size: int) -> Iterator[np.ndarray]:
    """Cut the row numbers below `num` into even batches of about `size`."""
    yield from np.array_split(np.arange(num), max(1, num // size))


@torch.inference_mode()
def rows_as_halves(
    label: str, num: int, size: int, make: Callable[[np.ndarray], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Return what `make` returns for batches of row numbers, joined and in float16, as it is cached."""
    parts: dict[str, list[Tensor]] = {}
    with progress_bar(label, num) as advance:
        for index in batches(num, size):
            for name, value in make(index).items():
                parts.setdefault(name, []).append(value.half())
            advance(len(index))
    return {name: torch.cat(values).clone() for name, values in parts.items()}


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array so that its file is either absent or whole."""
    with atomic_path(path, suffix=path.suffix) as temporary:
        np.save(temporary, array)
