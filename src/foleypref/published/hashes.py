"""Is a file the published one? Sizes and hashes, each file hashed once and remembered beside it.

The remembered hash holds for one size and modification time of the file, to the nanosecond.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from foleypref.media.files import write_atomic
from foleypref.published.places import companions
from foleypref.published.weight_file import WeightFile

_BLOCK = 1 << 24  # bytes


@dataclass(frozen=True)
class Hashes:
    """MD5 and SHA-256 of a file's bytes, in hexadecimal."""

    md5: str
    sha256: str


def file_hashes(path: Path) -> Hashes:
    """Both hashes of a file, from memory if it has not changed since they were taken."""
    stat = path.stat()
    key = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    places = _memories(path)
    for place in places:
        try:
            stored = json.loads(place.read_text())
            if stored["key"] == key:
                return Hashes(**stored["hashes"])
        except (OSError, ValueError, KeyError, TypeError):  # none yet, or not of our making
            continue
    hashes = _take(path)
    _remember(places, json.dumps({"key": key, "hashes": asdict(hashes)}).encode())
    return hashes


def rename(path: Path, target: Path) -> None:
    """Rename a file together with what is remembered of it; neither size nor time changes by that."""
    os.replace(path, target)
    for old, new in zip(_memories(path), _memories(target), strict=True):
        with contextlib.suppress(OSError):
            os.replace(old, new)


def remove(path: Path) -> None:
    """Delete a file and what is remembered of it."""
    path.unlink()
    for place in _memories(path):
        with contextlib.suppress(OSError):
            place.unlink()


def _memories(path: Path) -> list[Path]:
    return companions(path, f".{path.name}.foleypref-hash.json")


def _remember(places: list[Path], data: bytes) -> None:
    for place in places:
        try:
            write_atomic(place, data)
            return
        except OSError:  # a read-only folder: the next place
            continue


def mismatch(path: Path, entry: WeightFile) -> str | None:
    """What tells a file from the published one, in words that name both; None if nothing does.

    An entry without size or hashes says nothing. A wrong size is told without reading the file.
    """
    size = path.stat().st_size
    if entry.bytes is not None and size != entry.bytes:
        return f"{size:,} bytes found, the published file has {entry.bytes:,}"
    if entry.md5 is None and entry.sha256 is None:
        return None
    found = file_hashes(path)
    for name in ("sha256", "md5"):
        wanted = getattr(entry, name)
        if wanted is not None and getattr(found, name) != wanted:
            return f"{name} {getattr(found, name)} found, the published file has {wanted}"
    return None


def _take(path: Path) -> Hashes:
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            md5.update(block)
            sha256.update(block)
    return Hashes(md5.hexdigest(), sha256.hexdigest())


def weights_version(*paths: Path, method: int = 1) -> str:
    """A scorer's version: the beginnings of its files' hashes, then the method's number."""
    return "-".join([*(file_hashes(path).sha256[:8] for path in paths), str(method)])
