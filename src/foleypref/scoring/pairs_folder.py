"""Export a workspace's pairs, or import them, as a folder that the `datasets` library loads.

    FOLDER/data/train-00000-of-00001.parquet   one row per pair
    FOLDER/README.md                           YAML front matter and the meaning of the columns

`clip_id`, `chosen` and `rejected` are the workspace's ids. Sound is not copied: chosen_latents and
rejected_latents say where the latents lie, "tensors/<shard>.safetensors#<row>" relative to the workspace,
and `video` is the clip's path as the workspace has it. Import also takes metadata.jsonl or metadata.csv with
at least clip_id, chosen and rejected.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from foleypref.media.files import write_atomic
from foleypref.workspace.records import Candidate, Clip, Failure, ImportedPair, Pair
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import StageCount, say

STAGE = "import_pairs"
DATA = "data/train-00000-of-00001.parquet"
METADATA = ("metadata.jsonl", "metadata.csv")
README = """---
license: other
task_categories:
- video-classification
tags:
- preference
- video-to-audio
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---

# Preference pairs for video-to-audio

{num} pairs of {clips} clips, exported by foleypref.

| column | meaning |
|---|---|
| clip_id | the clip (a trim of a video), by content |
| prompt | its caption |
| video | its path; relative ones start at the workspace |
| chosen, rejected | candidate ids |
| score_chosen, score_rejected | p(good) by AudioScore; for people's pairs the share of raters or votes |
| complexity | Eq. 3 of arXiv 2603.11089: 1 easy, 0 hard, 0 for people's pairs |
| source | auto, human, simulated, or the name of a negative |
| chosen_latents, rejected_latents | `tensors/<shard>.safetensors#<row>` in the workspace; not copied |
"""


def export_pairs(workspace: Workspace, folder: str | Path) -> Path:
    """Write all pairs; returns the Parquet file. Raises ValueError for no pairs or one that lost its clip."""
    pairs, clips, candidates = workspace.read(Pair), workspace.by_id(Clip), workspace.by_id(Candidate)
    if not pairs:
        raise ValueError(f"{workspace.root} has no pairs; run `foleypref pair` first")
    lost = [p for p in pairs if p.clip_id not in clips or not {p.chosen, p.rejected} <= candidates.keys()]
    if lost:
        raise ValueError(
            f"{len(lost)} pairs name clips or candidates that are gone, {lost[0].pair_id} first; pair again"
        )
    rows = [
        {
            "clip_id": p.clip_id,
            "prompt": p.prompt,
            "video": clips[p.clip_id].path,
            "chosen": p.chosen,
            "rejected": p.rejected,
            "score_chosen": p.score_chosen,
            "score_rejected": p.score_rejected,
            "complexity": p.complexity,
            "source": p.source,
            "chosen_latents": latents_place(candidates[p.chosen]),
            "rejected_latents": latents_place(candidates[p.rejected]),
        }
        for p in pairs
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink, compression="zstd")
    path = Path(folder) / DATA
    write_atomic(path, sink.getvalue().to_pybytes())
    readme = README.format(num=len(pairs), clips=len({p.clip_id for p in pairs}))
    write_atomic(Path(folder) / "README.md", readme.encode())
    say(f"export_pairs: {len(pairs)} done -> {folder}")
    return path


def latents_place(candidate: Candidate) -> str:
    """Return where a candidate's latents lie, relative to the workspace; "" if it has none."""
    return f"tensors/{candidate.shard}.safetensors#{candidate.row}" if candidate.shard else ""


def import_pairs(workspace: Workspace, folder: str | Path) -> StageCount:
    """Add the pairs of a folder to the workspace's; a bad row is one recorded failure.

    Optional columns: prompt (the clip's), score_chosen, score_rejected, complexity (0) and source ("human").
    Each new pair is recorded as imported, so a later run of `pair` leaves it in place. Raises ValueError if
    the folder holds no data/*.parquet, metadata.jsonl or metadata.csv, or while `pair` is running.
    """
    count = StageCount(STAGE)
    with workspace.lock(STAGE), workspace.lock("pair"):  # `pair` replaces the table that grows here
        clips, candidates = workspace.by_id(Clip), workspace.by_id(Candidate)
        known = workspace.ids(Pair)
        new: dict[str, Pair] = {}
        failures: list[Failure] = []
        for place, row in _rows(Path(folder)):
            try:
                pair = _pair(row, clips, candidates)
            except ValueError as error:
                failures.append(Failure.make(STAGE, place, str(error)))
                continue
            if pair.pair_id in known or pair.pair_id in new:
                count.skipped += 1
            else:
                new[pair.pair_id] = pair
        imported = [ImportedPair(pair_id) for pair_id in new]
        workspace.append([*failures, *imported, *new.values()])
    count.done, count.failed = len(new), len(failures)
    say(count.line())
    return count


def _rows(folder: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (place, row) of every row, from Parquet if there is any, else from the metadata file."""
    parts = sorted(folder.glob("data/*.parquet")) or [folder / m for m in METADATA if (folder / m).is_file()]
    if not parts:
        raise ValueError(f"{folder} holds no pairs: no data/*.parquet, {' or '.join(METADATA)}")
    for path in parts:
        try:
            rows = _read(path)
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, pa.ArrowException) as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
        yield from ((f"{path}:{number}", row) for number, row in enumerate(rows, 1))


def _read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".csv":
        return list(csv.DictReader(text.splitlines(keepends=True)))
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _pair(row: Any, clips: Mapping[str, Clip], candidates: Mapping[str, Candidate]) -> Pair:
    """Return the record of a row. Raises ValueError that says what is wrong with it."""
    if not isinstance(row, dict):
        raise ValueError(f"a row is an object with columns, found {type(row).__name__}")
    clip_id, chosen, rejected = (str(row.get(name) or "") for name in ("clip_id", "chosen", "rejected"))
    if clip_id not in clips:
        raise ValueError(f"no clip {clip_id!r} in this workspace")
    for name, candidate_id in (("chosen", chosen), ("rejected", rejected)):
        if candidate_id not in candidates:
            raise ValueError(f"{name}: no candidate {candidate_id!r} in this workspace")
        if candidates[candidate_id].clip_id != clip_id:
            raise ValueError(f"{name}: candidate {candidate_id} belongs to another clip")
    if chosen == rejected:
        raise ValueError(f"chosen and rejected are the same candidate {chosen}")
    complexity = _number(row, "complexity")
    if not -1 <= complexity <= 1:
        raise ValueError(f"complexity is in [-1, 1], found {complexity}")
    source = str(row.get("source") or "human")
    scores = _number(row, "score_chosen"), _number(row, "score_rejected")
    pair = Pair.make(clips[clip_id], (chosen, rejected), source, scores, complexity=complexity)
    return replace(pair, prompt=str(row.get("prompt") or pair.prompt))


def _number(row: Mapping[str, Any], name: str) -> float:
    given = row.get(name)
    if given is None or given == "":
        return 0.0
    try:
        value = float(given)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name} is a number, found {given!r}")
    return value
