"""Download one URL to a .part file, resuming where the server can, and failing fast without a network."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

TIMEOUT_S = 10.0  # to connect, and between two pieces of data
_BLOCK = 1 << 20  # bytes
_REPORT_EVERY_S = 5.0


class Unreachable(ValueError):
    """A host does not answer."""


def download(url: str, part: Path, label: str, *, quiet: bool = False) -> None:
    """Download `url` to `part`, going on where an earlier attempt stopped.

    Raises ValueError if the host does not answer, the server refuses, the disk is too small or the connection
    breaks; the data received so far stay. `label` begins every message.
    """
    reach(url)
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{label}: another process is downloading {part}; wait for it") from error
        except OSError:  # some network disks have no locks
            pass
        attempt = _Download(url, part, file, label, quiet=quiet)
        while not attempt.request_rest():
            file.truncate(0)  # the part belongs to another version of the file: start again
        file.flush()
        os.fsync(file.fileno())
    _tag_file(part).unlink(missing_ok=True)


def reach(url: str) -> None:
    """Raise `Unreachable` within seconds if the host of `url` does not answer; a refusal is an answer."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return
    failed: list[object] = ["no answer"]

    def knock() -> None:
        request = urllib.request.Request(f"{parts.scheme}://{parts.netloc}/", method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):
                failed.clear()
        except urllib.error.HTTPError:
            failed.clear()
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            # A certificate that this Python does not know is an answer too: the download itself refuses it.
            failed[:] = [] if isinstance(reason, ssl.SSLError) else [reason]

    # In a thread, because looking up a name can take longer than any timeout of ours.
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(TIMEOUT_S * 1.5)
    if failed:
        raise Unreachable(f"{parts.netloc} cannot be reached ({failed[0]})")


def say(text: str, quiet: bool) -> None:
    """Print a line of progress on stderr unless `quiet`."""
    if not quiet:
        print(text, file=sys.stderr, flush=True)


class _Download:
    """A URL and the open file of the part that has come so far."""

    def __init__(self, url: str, part: Path, file: IO[bytes], label: str, *, quiet: bool) -> None:
        self.url, self.part, self.file, self.label, self.quiet = url, part, file, label, quiet

    def request_rest(self) -> bool:
        """Request the missing bytes once; False if the part is of no use and must be started again."""
        start = self.file.seek(0, os.SEEK_END)
        headers = {"User-Agent": "foleypref", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if tag := _tag(self.part):
                headers["If-Range"] = tag  # the server sends the whole file if it has been replaced meanwhile
        request = urllib.request.Request(self.url, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                if start and (getattr(answer, "status", None) != 206 or _range(answer)[0] != start):
                    return False
                _tag_file(self.part).write_text(json.dumps({"etag": answer.headers.get("ETag")}))
                self._copy(answer, start)
                return True
        except urllib.error.HTTPError as error:
            if error.code == 416 and start:  # nothing left to send: the part is whole, or another file's
                return _range(error)[1] == start
            raise ValueError(f"{self.label}: {self.url} answers {error.code} {error.reason}") from error
        except urllib.error.URLError as error:
            raise ValueError(f"{self.label}: {self.url} cannot be read ({error.reason})") from error
        except OSError as error:  # a time-out or a reset during the transfer
            raise ValueError(self._stopped(None, str(error) or type(error).__name__)) from error

    def _copy(self, answer: Any, start: int) -> None:
        length = answer.headers.get("Content-Length")
        total = _range(answer)[1] or (start + int(length) if length else None)
        free = shutil.disk_usage(self.part.parent).free
        if total is not None and total - start > free:
            raise ValueError(
                f"{self.label} needs {total - start:,} more bytes and {self.part.parent} has {free:,} free; "
                "make room, or choose another folder with --folder or FOLEYPREF_WEIGHTS"
            )
        done, last_report = start, time.monotonic()
        while block := answer.read(_BLOCK):
            self.file.write(block)
            done += len(block)
            if time.monotonic() - last_report > _REPORT_EVERY_S:
                last_report = time.monotonic()
                say(f"{self.label}: {done / 1e9:.2f} of {(total or 0) / 1e9:.2f} GB", self.quiet)
        if total is not None and done < total:
            raise ValueError(self._stopped(total, "the connection closed"))

    def _stopped(self, total: int | None, reason: str) -> str:
        self.file.flush()
        of = f" of {total:,}" if total else ""
        return (
            f"{self.label}: the download stopped after {self.file.tell():,}{of} bytes ({reason}); "
            "the same command goes on"
        )


def _range(answer: Any) -> tuple[int | None, int | None]:
    """Return the first byte and the whole size that an answer's Content-Range states."""
    stated = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", answer.headers.get("Content-Range") or "")
    if stated is None:
        return None, None
    return (int(stated[1]) if stated[1] else None), int(stated[2])


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _tag(part: Path) -> str | None:
    """Return the ETag of the version that a part belongs to; only a strong one, as If-Range requires."""
    try:
        tag = json.loads(_tag_file(part).read_text())["etag"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return tag if isinstance(tag, str) and not tag.startswith("W/") else None
