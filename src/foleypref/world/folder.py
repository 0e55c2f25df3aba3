"""A folder of rendered clips: the world it belongs to, the clips it holds, and its metadata.jsonl."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from foleypref.media.files import remove_leftovers, write_atomic
from foleypref.world import SPLITS, VERSION
from foleypref.world.damage import DamageShares


def claim(out: Path, shares: DamageShares) -> None:
    """Create OUT, or refuse one that holds clips of another world."""
    (out / "clean").mkdir(parents=True, exist_ok=True)
    (out / ".rows").mkdir(exist_ok=True)
    remove_leftovers(out.rglob(".*.tmp"))
    mine, path = {"version": VERSION, "shares": asdict(shares)}, out / "world.json"
    if path.exists():
        present = json.loads(path.read_text())
        if present != mine:
            raise ValueError(f"{out} holds clips made with {present}, not {mine}; choose another folder")
    else:
        write_atomic(path, json.dumps(mine).encode())


def known_rows(out: Path) -> dict[str, dict[str, Any]]:
    """Collect the rows of finished clips, from finished and from broken runs."""
    lines = (out / "metadata.jsonl").read_text().splitlines() if (out / "metadata.jsonl").exists() else []
    lines += [path.read_text() for path in sorted((out / ".rows").glob("*.json"))]
    rows = [json.loads(line) for line in lines]
    return {Path(row["file_name"]).stem: row for row in rows}


def write_metadata(out: Path) -> None:
    """Merge all finished rows into metadata.jsonl, in the order of split, seed and index."""
    merged = list((out / ".rows").glob("*.json"))
    place = {name: k for k, name in enumerate(SPLITS)}
    rows = sorted(
        known_rows(out).values(), key=lambda r: (place[r["split"]], r["world_seed"], r["world_index"])
    )
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_atomic(out / "metadata.jsonl", text.encode())
    for path in merged:  # only these: another run may be adding its own
        path.unlink(missing_ok=True)


def is_complete(out: Path, name: str) -> bool:
    """Return True if a clip's video and its clean sound exist."""
    return (out / f"{name}.mp4").exists() and (out / "clean" / f"{name}.flac").exists()
