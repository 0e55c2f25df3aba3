"""Render clips of the world to disk, with several processes; stop it any time and run it again.

OUT/<split>-<seed>-<index>.mp4          what a user would download: H.264 + AAC, damaged where the split is
OUT/clean/<split>-<seed>-<index>.flac   the clean sound
OUT/metadata.jsonl                      one row per clip, with the truth, in the order of the indices
OUT/world.json                          the settings, so that two different worlds never mix in one folder
"""

import json
import os
import time
from collections.abc import Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from foleypref.media.files import atomic_path, write_atomic
from foleypref.workspace.pool import process_pool, usable_cores
from foleypref.world import CLASSES, DAMAGED_SPLITS, FPS, SAMPLE_RATE, SPLITS
from foleypref.world.damage import DamageShares, damage
from foleypref.world.drawing import render_frames
from foleypref.world.encode import write_flac, write_mp4
from foleypref.world.folder import claim, is_complete, known_rows, write_metadata
from foleypref.world.scenes import OTHER, Scene, generator, indices_of, sample_scene
from foleypref.world.settings import MakeSettings
from foleypref.world.sound import synthesise
from foleypref.world.sounds.tools import Wave

CHUNK = 4  # clips per task: few, so that progress is smooth, but enough to hide the cost of a task
AUDIBLE_DB = -45.0  # dBFS of the loudest frame of the clean sound


class Made(NamedTuple):
    """How many clips a run of `make` made, skipped and failed to make."""

    made: int
    skipped: int
    failed: int


def clip_name(split: str, seed: int, index: int) -> str:
    return f"{split}-{seed}-{index:06d}"


def other_scene(scene: Scene, purpose: str) -> Scene:
    """Return a scene that shares no class with this one, drawn from another random stream."""
    for attempt in range(100):
        seed = int(generator(scene.split, scene.seed, scene.index, f"{purpose} {attempt}").integers(2**53))
        other = sample_scene(scene.split + OTHER, seed, scene.index)
        if not set(other.labels) & set(scene.labels):
            return other
    raise AssertionError("no scene with other classes in 100 draws")


def _track(scene: Scene, clean: Wave, shares: DamageShares) -> tuple[Wave, dict[str, dict[str, Any]]]:
    """Return the sound that goes into the video, with the faults it was given and their parameters."""
    if scene.split not in DAMAGED_SPLITS:
        return clean, {}
    stray: dict[str, tuple[str, ...]] = {}

    def other_wave(purpose: str) -> Wave:
        other = other_scene(scene, purpose)
        stray[purpose] = other.labels
        return synthesise(other).wave

    rng = generator(scene.split, scene.seed, scene.index, "damage")
    wave, faults = damage(clean, other_wave, rng, shares)
    for purpose, labels in stray.items():
        faults[purpose]["labels"] = list(labels)
    return wave, faults


def make_clip(
    split: str, seed: int, index: int, out: Path, shares: DamageShares | None = None
) -> dict[str, Any]:
    """Render one clip to OUT and return its row of metadata.jsonl."""
    name, scene = clip_name(split, seed, index), sample_scene(split, seed, index)
    clean = synthesise(scene)
    wave, faults = _track(scene, clean.wave, shares or DamageShares())
    row: dict[str, Any] = {
        "file_name": f"{name}.mp4",
        "prompt": scene.caption,
        "split": split,
        "label": scene.labels[0],
        "labels": list(scene.labels),
        "family": scene.actors[0].family,
        "event_times_s": list(clean.event_times_s),
        "level_db": list(clean.level_db),
        "noise_floor_db": clean.noise_floor_db,
        "clean_audio": f"clean/{name}.flac",
        "damage": faults,
        "world_seed": seed,
        "world_index": index,
        "audible": max(clean.level_db) > AUDIBLE_DB,
    }
    with atomic_path(out / row["clean_audio"]) as path:
        write_flac(path, wave=clean.wave, sample_rate=SAMPLE_RATE)
    with atomic_path(out / row["file_name"]) as path:
        write_mp4(path, frames=render_frames(scene), fps=FPS, wave=wave, sample_rate=SAMPLE_RATE)
    # The row comes last: its presence means that both files are complete.
    write_atomic(out / ".rows" / f"{name}.json", json.dumps(row).encode())
    return row


def make(
    settings: MakeSettings,
    *,
    shares: DamageShares | None = None,
    among: Collection[str] = CLASSES,
    quiet: bool = False,
) -> Made:
    """Render clips of a split; those that the folder holds complete are skipped.

    `shares`: the faults of a damaged split. `among`: clips that show any other class are passed over. Several
    splits may share one folder.
    Raises ValueError for an unknown split or class, or a folder that holds another version or other shares.
    """
    began, s, out = time.monotonic(), settings, settings.out
    shares = shares or DamageShares()
    if s.split not in SPLITS:
        raise ValueError(f"no split named {s.split!r}; there are {', '.join(SPLITS)}")
    if s.num_clips < 0 or s.start < 0:
        raise ValueError(f"num_clips and start count from 0; they are {s.num_clips} and {s.start}")
    claim(out, shares)
    known = known_rows(out)
    indices = indices_of(s.split, s.seed, s.start, s.num_clips, among)
    names = {index: clip_name(s.split, s.seed, index) for index in indices}
    todo = [i for i, name in names.items() if name not in known or not is_complete(out, name)]
    failures, made = list[str](), 0
    for index, row in _progress(_rows(settings, todo, shares), len(todo), quiet):
        if isinstance(row, str):
            failures.append(f"{names[index]}: {row}")
        else:
            made += 1
    assert made + len(failures) == len(todo), "some clips were neither made nor reported"
    write_metadata(out)
    result = Made(made, s.num_clips - len(todo), len(failures))
    if not quiet:
        for line in failures:
            print(line)
        counts = f"made {result.made}, skipped {result.skipped}, failed {result.failed} clips"
        print(f"{counts} in {time.monotonic() - began:.1f} s")
    return result


def _rows(
    settings: MakeSettings, todo: list[int], shares: DamageShares
) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield (index, row or error) for every clip to make, in any order."""
    task = partial(_chunk, settings.split, settings.seed, out=settings.out, shares=shares)
    chunks = [todo[i : i + CHUNK] for i in range(0, len(todo), CHUNK)]
    workers = min(usable_cores() if settings.num_workers is None else settings.num_workers, len(chunks))
    if workers <= 1:
        for chunk in chunks:
            yield from task(chunk)
        return
    with process_pool(workers) as pool:
        waiting, left = set[Future](), iter(chunks)
        while True:
            waiting |= {pool.submit(task, chunk) for chunk in islice(left, 4 * workers - len(waiting))}
            if not waiting:
                break
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield from future.result()


def _chunk(
    split: str, seed: int, indices: list[int], out: Path, shares: DamageShares
) -> list[tuple[int, dict[str, Any] | str]]:
    """Make some clips; return each one's row, or its error as one line."""
    rows: list[tuple[int, dict[str, Any] | str]] = []
    for index in indices:
        try:
            rows.append((index, make_clip(split, seed, index, out, shares)))
        except Exception as error:  # one bad clip must not end the run
            rows.append((index, f"{type(error).__name__}: {error}".replace("\n", " ")))
    return rows


def _progress(rows: Iterator[tuple[int, Any]], total: int, quiet: bool) -> Iterator[tuple[int, Any]]:
    """Yield the rows; on a terminal, show a bar and the time left."""
    from rich.progress import track  # late: workers import this file and need no terminal

    yield from track(rows, "world", total=total, disable=quiet or not total or not os.isatty(1))
