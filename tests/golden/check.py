"""Run every golden check on a folder: `python tests/golden/check.py DIR [--limit 1e-5] [--verbose]`.

Every `check_*.py` beside this file exports CHECKS: file name pattern -> function(path) that yields
(quantity, ours, expected). Prints one line per file: name, largest relative error, ok or FAIL. Exit code 0 if
all are ok, 1 if one fails or a module of checks does not import, 2 if there is nothing to check.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for _place in (str(ROOT / "src"), str(ROOT)):
    if _place not in sys.path:
        sys.path.insert(0, _place)

from torch import Tensor  # noqa: E402

from tests.golden.compare import LIMIT, relative_error  # noqa: E402

COMPANIONS = (".json", ".py", ".md")  # files that a check reads beside its tensors, and notes about them

Check = Callable[[Path], Iterator[tuple[str, Tensor, Tensor]]]


def load_checks(folder: Path, package: str) -> tuple[list[tuple[str, Check]], dict[str, str]]:
    """(pattern, check) of every `check_*.py` in `folder`, and module name -> why it could not be imported."""
    checks: list[tuple[str, Check]] = []
    broken: dict[str, str] = {}
    for path in sorted(folder.glob("check_*.py")):
        try:
            module = importlib.import_module(f"{package}.{path.stem}")
            checks += list(module.CHECKS.items())
        except Exception as error:
            broken[path.name] = one_line(error)
    return checks, broken


def worst_error(check: Check, path: Path) -> tuple[float, list[tuple[str, float]]]:
    """The largest relative error over the quantities of a file, and each; ValueError names a bad one."""
    errors: list[tuple[str, float]] = []
    for name, ours, expected in check(path):
        try:
            errors.append((name, relative_error(ours, expected)))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    if not errors:
        raise ValueError("the check compared nothing")
    return max(error for _, error in errors), errors


def report(
    files: Sequence[Path], checks: Sequence[tuple[str, Check]], limit: float, *, verbose: bool
) -> dict[str, list[str]]:
    """Check files one by one, printing a line each; returns their names under ok, FAIL and skipped."""
    width = max((len(path.name) for path in files), default=0)
    outcome: dict[str, list[str]] = {"ok": [], "FAIL": [], "skipped": []}
    for path in files:
        matching = [check for pattern, check in checks if fnmatch.fnmatch(path.name, pattern)]
        if not matching:
            if path.suffix not in COMPANIONS:
                outcome["skipped"].append(path.name)
                _say(f"{path.name:<{width}}  {'-':>9}  skipped (no check)")
            continue
        worst, note, details = 0.0, "", []
        for check in matching:
            try:
                error, errors = worst_error(check, path)
            except Exception as problem:
                if verbose:
                    traceback.print_exc()
                worst, note = float("inf"), f": {one_line(problem)}"
            else:
                worst, details = max(worst, error), [*details, *errors]
        good = worst <= limit  # False for NaN too
        outcome["ok" if good else "FAIL"].append(path.name)
        _say(f"{path.name:<{width}}  {worst:>9.2e}  {'ok' if good else 'FAIL'}{note}")
        for name, error in details if verbose or (not good and not note) else []:
            if verbose or not error <= limit:
                _say(f"{'':<{width}}  {error:>9.2e}  {name}")
    return outcome


def main(argv: Sequence[str] | None = None) -> int:
    """Check every file of a folder; returns the exit code."""
    parser = argparse.ArgumentParser(prog="check.py", description="Run every golden check on a folder.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of golden files")
    parser.add_argument("--limit", type=float, default=LIMIT, help="relative error allowed (%(default)g)")
    parser.add_argument("--verbose", action="store_true", help="every quantity, and tracebacks")
    args = parser.parse_args(argv)
    if not args.folder.is_dir():
        return _nothing(args.folder, "no such folder")
    checks, broken = load_checks(Path(__file__).parent, "tests.golden")
    for name, reason in broken.items():
        _say(f"{name}: FAIL, cannot be imported: {reason}")
    files = _files(args.folder)
    known = [path for path in files if any(fnmatch.fnmatch(path.name, pattern) for pattern, _ in checks)]
    if not known and not broken:
        return _nothing(args.folder, "no file in it has a check")
    outcome = report(files, checks, args.limit, verbose=args.verbose)
    failed = len(outcome["FAIL"]) + len(broken)
    _say(f"{len(outcome['ok'])} ok, {failed} failed, {len(outcome['skipped'])} skipped; limit {args.limit:g}")
    return 1 if failed else 0


def _nothing(folder: Path, found: str) -> int:
    print(f"check.py: {folder}: {found}; give a folder of golden files", file=sys.stderr)
    return 2


def _files(folder: Path) -> list[Path]:
    """Every file below a folder, hidden ones and caches left out."""
    hidden = ("__pycache__", ".")
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(hidden) for part in path.relative_to(folder).parts)
    )


def one_line(error: BaseException) -> str:
    """An error's type and message on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
