"""Measure the house: rooms, imports, circles, sizes. `python tools/house.py [SRC]`.

SRC is the package's folder (default: src/foleypref). Every import of the package's own modules counts: at the
top of a file, inside a function, and under `TYPE_CHECKING`. `tests/test_house.py` holds the rules of
docs/design/000-house.md with the functions below.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

FLOORS: tuple[tuple[str, ...], ...] = (
    ("settings", "flow", "media", "networks"),
    ("workspace",),
    ("published",),
    ("world",),
    ("models",),
    ("scoring",),
    ("training", "annotate"),
    ("evaluation",),
    ("ingest", "sample", "score", "fit", "pair", "train", "evaluate", "report", "generate"),
    ("recipes",),
    ("align", "compare", "benchmark"),
    ("hub",),
    ("cli",),
    ("__main__",),
)
"""Rooms and verbs from the ground up. A file imports from its own room or from lower floors."""

ALONE = ("networks", "flow")
"""Rooms that import torch and no other room."""

Imports = dict[str, dict[str, int]]
"""Module -> the modules of the package that it imports, each with the line of the first import."""


class Violation(NamedTuple):
    """An import that the floors forbid."""

    module: str
    line: int
    imported: str


def imports_of(package: Path) -> Imports:
    """Return every import among the modules of a package, late ones and those for types included."""
    modules = {_name(path, package): path for path in sorted(package.rglob("*.py"))}
    return {name: dict(_imported(name, path, modules)) for name, path in modules.items()}


def room_of(module: str) -> str:
    """Return the first name below the package: the room or verb that a module belongs to."""
    return module.split(".")[1] if "." in module else "__init__"


def upward(imports: Imports) -> list[Violation]:
    """Return the imports that lead to a higher floor, or to another room of the same floor."""
    floor = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
    floor["__init__"] = -1  # the version, which every room may ask for
    return [
        Violation(module, line, imported)
        for module, targets in imports.items()
        for imported, line in targets.items()
        if room_of(module) != room_of(imported) and floor[room_of(imported)] >= floor[room_of(module)]
    ]


def circles(imports: Imports) -> list[list[str]]:
    """Return the groups of modules that import each other in a circle (Tarjan, SIAM J. Comput. 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for imported in imports[module]:
            if imported not in index:
                visit(imported)
            if imported in stack:
                low[module] = min(low[module], low[imported])
        if low[module] == index[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                groups.append(sorted(group))

    sys.setrecursionlimit(max(sys.getrecursionlimit(), 10 * len(imports)))
    for module in imports:
        if module not in index:
            visit(module)
    return groups


def longest_chain(imports: Imports) -> list[str]:
    """Return the longest chain of modules in which each imports the next; modules in a circle end it."""
    chains: dict[str, list[str]] = {}

    def chain(module: str, above: frozenset[str]) -> list[str]:
        if module not in chains:
            below = [chain(name, above | {module}) for name in imports[module] if name not in above]
            chains[module] = [module, *max(below, key=len, default=[])]
        return chains[module]

    return max((chain(module, frozenset({module})) for module in imports), key=len)


def arrows(imports: Imports) -> set[tuple[str, str]]:
    """Return the (room, room) pairs of which the first imports the second."""
    pairs = {(room_of(module), room_of(target)) for module, targets in imports.items() for target in targets}
    return {(a, b) for a, b in pairs if a != b and b != "__init__"}


def figures(package: Path) -> Mapping[str, str]:
    """Return the measures of the package at `package` by name, as text for a table."""
    imports = imports_of(package)
    files = sorted(package.rglob("*.py"))
    lengths = [len(path.read_text(encoding="utf-8").splitlines()) for path in files]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files]
    functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, _FUNCTIONS)]
    sizes = [(node.end_lineno or node.lineno) - node.lineno + 1 for node in functions]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    source = [len(file) for file in lengths_without_init(files)]
    return {
        "files at the root": str(sum(path.parent == package for path in files)),
        "modules": str(len(files)),
        "imports among modules": str(sum(map(len, imports.values()))),
        "arrows between rooms": str(len(arrows(imports))),
        "circles": str(len(circles(imports))),
        "upward imports": str(len(upward(imports))) if _has_rooms(package) else "-",
        "longest import chain": str(len(longest_chain(imports))),
        "casts": str(sum(isinstance(call.func, ast.Name) and call.func.id == "cast" for call in calls)),
        "calls with 7 and more positional arguments": str(sum(len(call.args) >= 7 for call in calls)),
        "docstrings under five words": str(sum(map(short_docstrings, trees))),
        "lines of Python": str(sum(lengths)),
        "file lines, median / largest": f"{statistics.median(source):.0f} / {max(source)}",
        "function lines, median / largest": f"{statistics.median(sizes):.0f} / {max(sizes)}",
    }


def lengths_without_init(files: list[Path]) -> list[list[str]]:
    """Return the lines of each file, of `__init__` files only those that have any code."""
    lines = [path.read_text(encoding="utf-8").splitlines() for path in files]
    return [text for path, text in zip(files, lines, strict=True) if path.stem != "__init__" or len(text) > 7]


def short_docstrings(tree: ast.AST, fewest: int = 5) -> int:
    """Return how many docstrings in a syntax tree have fewer than `fewest` words."""
    nodes = (n for n in ast.walk(tree) if isinstance(n, (*_FUNCTIONS, ast.ClassDef, ast.Module)))
    return sum(0 < len((ast.get_docstring(node) or "").split()) < fewest for node in nodes)


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def _has_rooms(package: Path) -> bool:
    return all((package / room).is_dir() for room in ("settings", "workspace", "training"))


def _name(path: Path, package: Path) -> str:
    parts = (package.name, *path.relative_to(package).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(name: str, path: Path, modules: Mapping[str, Path]) -> Iterator[tuple[str, int]]:
    seen = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for target in _targets(node, modules):
            if target not in seen and target != name:
                seen.add(target)
                yield target, node.lineno  # type: ignore[attr-defined]


def _targets(node: ast.AST, modules: Mapping[str, Path]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in modules)
    elif isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            if inner in modules:
                yield inner
            elif node.module in modules:
                yield node.module


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "src" / "foleypref"
    for key, value in figures(folder).items():
        print(f"{key:<45}{value:>12}")
