"""Measure the house: rooms, imports, circles, sizes. `python tools/house.py [PACKAGE] [--where]`.

PACKAGE is the folder of the package (default: src/foleypref). Every import of its own modules counts: at the
top of a file, inside a function, and under `TYPE_CHECKING`. `tests/test_house.py` holds the rules of
docs/design/000-house.md with the functions below.
"""

from __future__ import annotations

import argparse
import ast
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = Path(__file__).parents[1] / "src" / "foleypref"

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


def figures(package: Path) -> dict[str, str]:
    """Return the measures of the package at `package` by name, as text for a table."""
    imports, sources = imports_of(package), read_sources(package)
    files = sorted((len(source.lines), source.name) for source in sources if len(source.lines) > 7)
    functions = sorted(function_lengths(sources))
    return {
        "files at the root": str(sum(source.path.parent == package for source in sources)),
        "modules": str(len(sources)),
        "imports among modules": str(sum(map(len, imports.values()))),
        "arrows between rooms": str(len(arrows(imports))),
        "circles": str(len(circles(imports))),
        "upward imports": str(len(upward(imports))) if _is_planned(imports) else "no floors",
        "longest import chain": str(len(longest_chain(imports))),
        **{title: str(len(list(places))) for title, places in offences(sources).items()},
        "lines of Python": str(sum(len(source.lines) for source in sources)),
        "file lines, median": f"{statistics.median(length for length, _ in files):.0f}",
        "file lines, largest": "{} {}".format(*files[-1]),
        "function lines, median": f"{statistics.median(length for length, _ in functions):.0f}",
        "function lines, largest": "{} {}".format(*functions[-1]),
    }


class Source(NamedTuple):
    """One file of the package, read and parsed."""

    path: Path
    name: str  # relative to the package's parent folder
    lines: list[str]
    tree: ast.Module

    def nodes(self, *kinds: type[ast.AST]) -> Iterator[Any]:
        """Yield the nodes of the syntax tree that are of these kinds."""
        return (node for node in ast.walk(self.tree) if isinstance(node, kinds))

    def at(self, node: ast.stmt | ast.expr) -> str:
        """Return "file:line" of a node."""
        return f"{self.name}:{node.lineno}"


def read_sources(package: Path) -> list[Source]:
    """Read every Python file of the package."""
    sources = []
    for path in sorted(package.rglob("*.py")):
        text, name = path.read_text(encoding="utf-8"), path.relative_to(package.parent).as_posix()
        sources.append(Source(path, name, text.splitlines(), ast.parse(text)))
    return sources


def offences(sources: Sequence[Source]) -> dict[str, list[str]]:
    """Return what breaks a rule of size or style: rule -> "file:line" of each place."""
    calls = [(source, call) for source in sources for call in source.nodes(ast.Call)]
    return {
        "casts": [source.at(call) for source, call in calls if _called(call) == "cast"],
        "calls with 7 or more positional arguments": [
            source.at(call) for source, call in calls if len(call.args) >= 7
        ],
        "docstrings under five words": [
            f"{source.name}:{getattr(node, 'lineno', 1)}"
            for source in sources
            for node in source.nodes(*_FUNCTIONS, ast.ClassDef, ast.Module)
            if 0 < len((ast.get_docstring(node) or "").split()) < 5
        ],
        "files over 400 lines": [source.name for source in sources if len(source.lines) > 400],
        "functions over 50 lines": [name for length, name in function_lengths(sources) if length > 50],
    }


def function_lengths(sources: Iterable[Source]) -> list[tuple[int, str]]:
    """Return (lines, "file:line name") of every function and method."""
    return [
        ((node.end_lineno or node.lineno) - node.lineno + 1, f"{source.at(node)} {node.name}")
        for source in sources
        for node in source.nodes(*_FUNCTIONS)
    ]


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def _is_planned(imports: Imports) -> bool:
    """Return whether every room has a floor; a package from before the rooms has none."""
    return {room_of(module) for module in imports} <= {
        "__init__",
        *(room for floor in FLOORS for room in floor),
    }


def _name(path: Path, package: Path) -> str:
    parts = (package.name, *path.relative_to(package).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(name: str, path: Path, modules: Mapping[str, Path]) -> Iterator[tuple[str, int]]:
    seen = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        for target in _targets(node, modules):
            if target not in seen and target != name:
                seen.add(target)
                yield target, node.lineno


def _targets(node: ast.Import | ast.ImportFrom, modules: Mapping[str, Path]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in modules)
    elif node.module:
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            if inner in modules:
                yield inner
            elif node.module in modules:
                yield node.module


def main() -> None:
    """Print the measures, or with --where the places behind those that should be zero."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("package", nargs="?", type=Path, default=PACKAGE, help="the package's folder")
    parser.add_argument("--where", action="store_true", help="list the places that break a rule")
    arguments = parser.parse_args()
    if not arguments.where:
        for name, value in figures(arguments.package).items():
            print(f"{name:<45}{value}")
        return
    for rule, places in offences(read_sources(arguments.package)).items():
        print(f"{rule}: {len(places)}", *places, sep="\n  ")


if __name__ == "__main__":
    main()
