"""Compare two workspaces byte by byte: `python tools/compare_workspaces.py ONE OTHER [--renamed OLD=NEW …]`.

Logs are compared without the times in them, text files after the names in `--renamed` were replaced, and
TensorBoard's event files, whose names and contents are times, are left out. Prints every file that differs;
exit status 1 if there is one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CLOCK = "time/"  # prefix of the logged numbers that depend on the clock
TEXT = (".json", ".jsonl", ".yaml", ".md", ".html", ".js", ".txt", ".csv")


def files_of(root: Path) -> dict[str, Path]:
    """Return the files below `root` by relative path, without TensorBoard's and locks."""
    paths = (path for path in root.rglob("*") if path.is_file())
    named = {path.relative_to(root).as_posix(): path for path in paths}
    return {name: path for name, path in named.items() if "tensorboard/" not in name and "locks/" not in name}


def comparable(path: Path, roots: tuple[Path, Path], renamed: Mapping[str, str]) -> bytes | list[Any]:
    """Return the content of a file that must be equal in both workspaces."""
    if path.suffix not in TEXT:
        return path.read_bytes()
    text = path.read_text(encoding="utf-8")
    for old, new in {**renamed, **{str(root): "WORKSPACE" for root in roots}}.items():
        text = text.replace(old, new)
    if path.suffix == ".jsonl":
        return [_timeless(json.loads(line)) for line in text.splitlines()]
    return [_timeless(json.loads(text))] if path.suffix == ".json" else text.encode()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if not key.startswith(CLOCK)}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def main() -> int:
    """Compare the two workspaces of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("one", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--renamed", nargs="*", default=[], metavar="OLD=NEW")
    args = parser.parse_args()
    renamed = dict(item.split("=", 1) for item in args.renamed)
    roots = (args.one, args.other)
    one, other = (files_of(root) for root in roots)
    lonely = sorted(one.keys() ^ other.keys())
    shared = sorted(one.keys() & other.keys())
    differ = [
        name
        for name in shared
        if comparable(one[name], roots, renamed) != comparable(other[name], roots, renamed)
    ]
    for name in lonely:
        print(f"only in {'one' if name in one else 'other'}: {name}")
    for name in differ:
        print(f"differs: {name}")
    print(f"{len(shared) - len(differ)} of {len(shared)} files are equal; {len(lonely)} are in one only")
    return 1 if lonely or differ else 0


if __name__ == "__main__":
    sys.exit(main())
