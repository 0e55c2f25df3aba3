"""Files that are absent, old or whole: written beside their place, synced, then renamed into it.

A rename without a sync may reach the disk before the data does, and a power cut then leaves a torn file under
its final name. So the file is synced before the rename and its folder afterwards.

A temporary file names its writer by host, boot and process. Another machine that shares the disk can then
tell a running writer from a killed one: it only ever removes its own host's.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTIAL = ".partial"  # ends the name of a folder that is being filled
_TEMPORARY = re.compile(r"\.([0-9a-f]{8})-([0-9a-f]{8})-(\d+)\.tmp(\.\w+)?")


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` so that `path` is either absent, old or whole, also after a power cut."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def atomic_path(path: Path, suffix: str = "") -> Iterator[Path]:
    """Yield a temporary path; the file written there is synced and becomes `path` when the block ends.

    If the block raises, `path` stays as it was. `suffix` ends the temporary name, for writers that choose a
    format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    host, boot = _machine()
    temporary = path.with_name(f".{path.name}.{host}-{boot}-{os.getpid()}.tmp{suffix}")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder; once filled, it is synced and takes the place of the folder `path`.

    For a moment before the rename an older folder is gone and the new one is not there yet.
    """
    partial = path.with_name(f".{path.name}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    for inner in [*partial.iterdir(), partial]:
        sync(inner)
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Return when a file's data, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Delete those of `paths` that are temporary files of killed processes of this host."""
    mine = _machine()
    for path in paths:
        name = _TEMPORARY.search(path.name)
        if name is not None and name[1] == mine[0] and (name[2] != mine[1] or not _is_running(int(name[3]))):
            path.unlink(missing_ok=True)


@functools.cache
def _machine() -> tuple[str, str]:
    """Return hashes of this host (or container, which numbers its processes anew) and of its last boot."""
    namespace, boot = "", ""
    with suppress(OSError):  # not on every system
        namespace = str(Path("/proc/self/ns/pid").readlink())
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    return _short_hash(platform.node() + namespace), _short_hash(boot)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs for another user
        return True
    return True
