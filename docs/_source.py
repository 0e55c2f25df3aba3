"""Docstrings, signatures and settings for the reference, read from the source as it is written.

Our docstrings are prose with code in single backticks and indented blocks; signatures contain shapes; the
comment behind a setting explains it. autodoc by itself would read the first as markup, spell the second
out, and lose the third.
"""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import foleypref
from foleypref.settings.parts import DRAWERS

PACKAGE = Path(foleypref.__file__).parent
LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
SILENT = ("type:", "noqa", "fmt:")  # comments for tools


def prose(lines: list[str]) -> list[str]:
    """Return a docstring as reStructuredText: `x` is code, lines indented by four or more stay."""
    out: list[str] = []
    text: list[str] = []
    literal = False
    for line in lines:
        indented = line.startswith("    ")
        if indented and not literal:
            out += [*_inline(text), "", "::", ""]
            text = []
        elif literal and line.strip() and not indented:
            out.append("")
        literal = indented or (literal and not line.strip())
        if literal:
            out.append(line)
            continue
        if line.startswith("- ") and text and not text[-1].startswith(("- ", "  ")):
            text.append("")
        text.append(line)
    return [*out, *_inline(text)]


def _inline(text: list[str]) -> list[str]:
    """Return lines in which `x` is code and nothing else is read as markup."""
    found = ""
    for piece in re.split(r"(`[^`]+`)", "\n".join(text)):
        code = len(piece) > 2 and piece.startswith("`")
        added = f"`{piece}`" if code else re.sub(r"([\\*|`]|(?<=\w)_(?!\w))", r"\\\1", piece)
        if code and found and not re.search(r"[\s\-:/'\"<(\[{]$", found):
            found += "\\ "  # an empty escape that ends a word: literals begin and end only between words
        elif found.endswith("``") and added and not re.match(r"[\s\-.,:;!?/'\")\]}>]", added):
            found += "\\ "
        found += added
    return found.split("\n") if text else []


@cache
def tree(module: str) -> ast.Module:
    """Return the syntax tree of one of our modules."""
    return ast.parse(_path(module).read_bytes())


@cache
def comments(module: str) -> dict[int, str]:
    """Return a module's comments by line number."""
    with _path(module).open("rb") as file:
        tokens = list(tokenize.tokenize(file.readline))
    said = {t.start[0]: t.string.lstrip("# ").strip() for t in tokens if t.type == tokenize.COMMENT}
    return {line: text for line, text in said.items() if not text.startswith(SILENT)}


def _path(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    file = path.with_suffix(".py")
    return file if file.exists() else path / "__init__.py"


def definition(module: str, qualname: str) -> ast.AST | None:
    """Return the node that defines a name such as `Workspace.read`; None if there is none."""
    node: Any = tree(module)
    for name in qualname.split("."):
        inside = (n for n in ast.iter_child_nodes(node) if isinstance(n, ast.ClassDef | ast.FunctionDef))
        node = next((n for n in inside if n.name == name), None)
        if node is None:
            return None
    return node  # type: ignore[no-any-return]


class Linked(ast.NodeTransformer):
    """Turn names that a module imports from the package into links: `A` -> `~foleypref.room.a.A`."""

    def __init__(self, module: str, documented: Collection[str]) -> None:
        imports = (n for n in ast.walk(tree(module)) if isinstance(n, ast.ImportFrom) and n.module)
        places = {a.asname or a.name: (str(n.module), a.name) for n in imports for a in n.names}
        places |= {n.name: (module, n.name) for n in tree(module).body if isinstance(n, ast.ClassDef)}
        self.places = {
            name: f"~{place}.{original}"
            for name, (place, original) in places.items()
            if place in documented and isinstance(definition(place, original), ast.ClassDef)
        }

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Replace a documented class by its whole name."""
        return ast.parse(self.places.get(node.id, node.id), mode="eval").body


def signature(obj: Any, *, bound: bool, documented: Collection[str]) -> tuple[str, str | None] | None:
    """Return a function's arguments and return type as its source has them; without self if `bound`."""
    module, qualname = getattr(obj, "__module__", None) or "", getattr(obj, "__qualname__", "")
    node = definition(module, qualname) if module.startswith("foleypref") else None
    if not isinstance(node, ast.FunctionDef):
        return None
    links = Linked(module, documented)
    copy = ast.parse(ast.unparse(node)).body[0]
    assert isinstance(copy, ast.FunctionDef)
    if bound and not any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in copy.decorator_list):
        copy.args.args.pop(0)
    back = None if copy.returns is None else ast.unparse(links.visit(copy.returns))
    return f"({ast.unparse(links.visit(copy.args))})", back


def fields(cls: type) -> Iterator[tuple[str, str, str, str]]:
    """Yield (name, type, default, meaning) of each field of one of our classes, its bases' fields first."""
    rows: dict[str, tuple[str, str, str, str]] = {}
    ours = [base for base in reversed(cls.__mro__) if base.__module__.startswith("foleypref")]
    for base in ours:
        node = definition(base.__module__, base.__qualname__)
        if not isinstance(node, ast.ClassDef):
            continue
        for at, statement in enumerate(node.body):
            if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
                continue
            if not statement.target.id.startswith("_"):
                after = node.body[at + 1] if at + 1 < len(node.body) else None
                rows[statement.target.id] = _field(base.__module__, statement, after)
    yield from rows.values()


def _field(module: str, statement: ast.AnnAssign, after: ast.stmt | None) -> tuple[str, str, str, str]:
    said = comments(module)
    lines = range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)
    meaning = " ".join(said[line] for line in lines if line in said)
    if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
        meaning = " ".join(str(after.value.value).split())
    kind = re.sub(r"\b\w+Part\b", _part_kind, ast.unparse(statement.annotation))
    default, value = "", statement.value
    if isinstance(value, ast.Call) and ast.unparse(value.func).endswith(("Field", "field")):
        given = {k.arg: ast.unparse(k.value) for k in value.keywords}
        made = given.get("default_factory", "").removeprefix("lambda: ")
        default = ast.unparse(value.args[0]) if value.args else made
        bounds = [f"{sign} {given[key]}" for key, sign in LIMITS.items() if key in given]
        kind += f", {', '.join(bounds)}" if bounds else ""
    elif value is not None:
        default = ast.unparse(value)
    assert isinstance(statement.target, ast.Name)
    return statement.target.id, kind, default, meaning


def _part_kind(alias: re.Match[str]) -> str:
    drawer = part_types().get(alias[0])
    return alias[0] if drawer is None else f"part of {drawer}"


@cache
def part_types() -> dict[str, str]:
    """Return the drawer of each field type that takes a part: `ModelPart` -> `models`."""
    contracts = (drawer.folder / "__init__.py" for drawer in DRAWERS.values())
    named = (
        re.findall(r'^(\w+Part) = Annotated\[\w+, FromDrawer\("(\w+)"\)', c.read_text(), re.M)
        for c in contracts
    )
    return dict(pair for pairs in named for pair in pairs)


def table(cls: type) -> list[str]:
    """Return a class's fields as a table in reStructuredText, without empty columns; [] without fields."""
    rows = [("field", "type", "default", ""), *fields(cls)]
    columns = [at for at in range(4) if any(row[at] for row in rows[1:])]
    if not columns:
        return []
    lines = ["", ".. list-table::", "   :header-rows: 1", "   :widths: auto", ""]
    for number, row in enumerate(rows):
        for at in columns:
            code = number > 0 and at < 3 and row[at]
            cell = f"``{row[at]}``" if code else "".join(_inline([row[at]]))
            lines.append(f"   {'* -' if at == columns[0] else '  -'} {cell}".rstrip())
    return [*lines, ""]
