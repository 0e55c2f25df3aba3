"""A PostgreSQL server of the tests' own, from Debian's package, on a socket in a temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

SERVANTS = ("postgres", "nobody")  # the server refuses to run as root


def why_not() -> str:
    """Why there can be no server here, or ""."""
    if _programs() is None:
        return "no PostgreSQL server is installed under /usr/lib/postgresql"
    if os.geteuid() == 0 and (shutil.which("runuser") is None or _servant() is None):
        return "PostgreSQL refuses to run as root, and there is no runuser or no other user"
    return ""


def _programs() -> Path | None:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return programs[-1].parent if programs else None


def _servant() -> str | None:
    names = {user.pw_name for user in pwd.getpwall()}
    return next((name for name in SERVANTS if name in names), None)


@contextmanager
def postgres() -> Iterator[str]:
    """The address of a running, empty server; it is gone afterwards."""
    programs, as_root = _programs(), os.geteuid() == 0
    assert programs is not None
    folder = Path(mkdtemp(prefix="foleypref-pg-"))
    prefix = ["runuser", "-u", str(_servant()), "--"] if as_root else []
    if as_root:
        shutil.chown(folder, _servant())
    data = str(folder / "data")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    setup = [*prefix, str(programs / "initdb"), "-D", data, "-U", "tester", "-A", "trust", "--no-sync"]
    subprocess.run(setup, check=True, cwd="/", **quiet)  # type: ignore[call-overload]
    start = [*prefix, str(programs / "postgres"), "-D", data, "-k", str(folder)]
    options = ["-c", "listen_addresses=", "-c", "shared_buffers=16MB", "-c", "max_connections=100"]
    server = subprocess.Popen([*start, *options], cwd="/", **quiet)  # type: ignore[call-overload]
    try:
        _wait(programs, folder)
        yield f"postgresql://tester@/postgres?host={folder}"
    finally:
        subprocess.run(
            [*prefix, str(programs / "pg_ctl"), "-D", data, "-m", "immediate", "stop"],
            cwd="/", check=False, **quiet,
        )  # type: ignore[call-overload]  # fmt: skip
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(programs: Path, folder: Path) -> None:
    for _ in range(150):
        ready = subprocess.run(
            [programs / "pg_isready", "-h", folder, "-q"], check=False, stdout=subprocess.DEVNULL
        )
        if ready.returncode == 0:
            return
        time.sleep(0.2)
    raise RuntimeError("PostgreSQL did not start within 30 s")
