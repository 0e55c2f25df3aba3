"""Compare files with the published ones by size and hash; each file is hashed once.

The hashes are stored beside the file; they are valid for one size and modification time (nanoseconds).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from foleypref.media.files import write_atomic
from foleypref.published.places import companions, write_to_first
from foleypref.published.registry import WeightFile

_BLOCK = 1 << 24  # bytes


@dataclass(frozen=True)
class Hashes:
    """MD5 and SHA-256 of a file's bytes, in hexadecimal."""

    md5: str
    sha256: str


def file_hashes(path: Path) -> Hashes:
    """Return both hashes of a file, the stored ones if the file has not changed since."""
    stat = path.stat()
    key = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    places = _stored_hashes(path)
    for place in places:
        try:
            stored = json.loads(place.read_text())
            if stored["key"] == key:
                return Hashes(**stored["hashes"])
        except (OSError, ValueError, KeyError, TypeError):  # none yet, or not written by us
            continue
    hashes = _take(path)
    data = json.dumps({"key": key, "hashes": asdict(hashes)}).encode()
    write_to_first(places, lambda place: write_atomic(place, data))
    return hashes


def rename(path: Path, target: Path) -> None:
    """Rename a file together with its stored hashes, which stay valid: size and time do not change."""
    os.replace(path, target)
    for old, new in zip(_stored_hashes(path), _stored_hashes(target), strict=True):
        with contextlib.suppress(OSError):
            os.replace(old, new)


def remove(path: Path) -> None:
    """Delete a file and its stored hashes."""
    path.unlink()
    for place in _stored_hashes(path):
        with contextlib.suppress(OSError):
            place.unlink()


def _stored_hashes(path: Path) -> list[Path]:
    return companions(path, f".{path.name}.foleypref-hash.json")


def mismatch(path: Path, entry: WeightFile) -> str | None:
    """Describe how a file differs from the published one by size or hash; None if it does not.

    An entry without size or hashes fits any file. A wrong size is found without reading the file.
    """
    size = path.stat().st_size
    if entry.bytes is not None and size != entry.bytes:
        return f"{size:,} bytes found, the published file has {entry.bytes:,}"
    if entry.md5 is None and entry.sha256 is None:
        return None
    hashes = file_hashes(path)
    for name in ("sha256", "md5"):
        published = getattr(entry, name)
        if published is not None and getattr(hashes, name) != published:
            return f"{name} {getattr(hashes, name)} found, the published file has {published}"
    return None


def _take(path: Path) -> Hashes:
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            md5.update(block)
            sha256.update(block)
    return Hashes(md5.hexdigest(), sha256.hexdigest())


def weights_version(*paths: Path, method: int = 1) -> str:
    """Return a scorer's version: the beginnings of its files' hashes, then the number of its method."""
    return "-".join([*(file_hashes(path).sha256[:8] for path in paths), str(method)])
