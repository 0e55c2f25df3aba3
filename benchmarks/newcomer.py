"""A newcomer's first hour, by the clock: README to the first tuned model, tutorial to the first own scorer.

    python benchmarks/newcomer.py              # on a fresh clone of this checkout's last commit

Runs what the README and `docs/tutorials/add-a-scorer.md` tell people to type, in the order of the page, in a
temporary folder that goes afterwards. Packages come from pip's cache where it has them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TUTORIAL = "docs/tutorials/add-a-scorer.md"


def main() -> None:
    """Clone, follow both paths, and print how long each command took."""
    with tempfile.TemporaryDirectory() as folder:
        clone, own = Path(folder) / "foleypref", Path(folder) / "own"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        readme = (clone / "README.md").read_text()
        assert "make demo" in readme, "the README's first command has changed: change this script"
        print("README to the first tuned model")
        total = timed("make setup", clone) + timed("make demo", clone)
        print(f"  {total:6.0f} s in all\n\n{TUTORIAL}, in an empty folder")
        page = (clone / TUTORIAL).read_text()
        own.mkdir()
        for name, code in re.findall(r"^`(\w+\.py)`:\n\n```python\n(.*?)```", page, re.S | re.M):
            (own / name).write_text(code)
        commands = re.findall(r"^ {4}(foleypref .+)$", page, re.M)
        total = sum(timed(command, own, clone / ".venv" / "bin") for command in [*commands, "python look.py"])
        print(f"  {total:6.0f} s in all")


def timed(command: str, folder: Path, programs: Path | None = None) -> float:
    """Return the seconds that a command takes; if it fails, print its output."""
    env = {**os.environ, "PYTHONPATH": str(folder)} if programs else dict(os.environ)
    if programs:
        env["PATH"] = f"{programs}{os.pathsep}{env['PATH']}"
    start = time.perf_counter()
    done = subprocess.run(
        command, shell=True, cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - start
    print(f"  {seconds:6.1f} s  {command}", flush=True)
    if done.returncode:
        sys.exit(f"{command!r} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return seconds


if __name__ == "__main__":
    main()
