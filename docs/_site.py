"""Sphinx extensions of the site: our docstrings, whole drawers on a page, nothing from other machines."""

from __future__ import annotations

import collections
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

from _source import prose, signature, table
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from foleypref.settings.parts import DRAWERS, PACKAGE, names

PAGES = Path(__file__).parent / "api"
LOADED = {"link": "href", "object": "data"}  # of the others it is src
RELATIONS = {"stylesheet", "icon", "preload", "prefetch", "modulepreload", "preconnect", "dns-prefetch"}
ABROAD = re.compile(r"^\s*(?:https?:)?//", re.I)
_FIELD = type(vars(collections.namedtuple("_Any", "x"))["x"])  # what a field of a named tuple is

log = logging.getLogger(__name__)


@cache
def documented() -> frozenset[str]:
    """Return the modules that the reference documents."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in PAGES.glob("*.md"))
    found = set(re.findall(r"automodule:: (\S+)", text))
    for drawer in re.findall(r"drawer:: (\S+)", text):
        place = f"{PACKAGE}.{DRAWERS[drawer].place}"
        found |= {place, *(f"{place}.{name}" for name in names(drawer))}
    return frozenset(found)


class Drawer(SphinxDirective):
    """`.. drawer:: scorers`: the contract, then every part that is there."""

    required_arguments: ClassVar[int] = 1

    def run(self) -> list[nodes.Node]:
        """Return the drawer's `__init__.py` and its files, as autodoc shows them."""
        drawer = self.arguments[0]
        place = f"{PACKAGE}.{DRAWERS[drawer].place}"
        lines = ["", f".. automodule:: {place}", ""]
        for name in names(drawer):
            lines += [f".. rubric:: {name}", "", f".. automodule:: {place}.{name}", ""]
        return self.parse_text_to_nodes("\n".join(lines))


def _docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = prose(lines) + (table(obj) if what == "class" and isinstance(obj, type) else [])


def _signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, found: str | None, back: str | None
) -> tuple[str, str | None] | None:
    if what == "class" and obj.__module__.startswith("foleypref"):
        return "", None  # what it is made of is in its table
    if what not in ("function", "method"):
        return None
    return signature(obj, bound=what == "method", documented=documented())


def _skip(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    return True if isinstance(obj, _FIELD) else None  # fields of named tuples are in their table


class Loads(HTMLParser):
    """Collect the addresses that a page makes a browser load from another machine."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Scripts, styles, pictures, sound, frames."""
        given = {name: value or "" for name, value in attrs}
        if tag == "link" and not RELATIONS & set(given.get("rel", "").lower().split()):
            return
        values = [given.get(LOADED.get(tag, "src"), ""), given.get("poster", "")]
        values += [entry.split()[0] for entry in given.get("srcset", "").split(",") if entry.strip()]
        values += re.findall(r"url\(\s*[\"']?([^\"')]+)", given.get("style", ""))
        self.found += [value for value in values if ABROAD.match(value)]


def loaded_from_abroad(folder: Path) -> list[str]:
    """`page: address` of everything that built pages and their styles would load from another machine."""
    found = []
    for path in sorted(folder.rglob("*.html")):
        page = Loads()
        page.feed(path.read_text(encoding="utf-8"))
        found += [f"{path.relative_to(folder)}: {address}" for address in page.found]
    for path in sorted(folder.rglob("*.css")):
        text = path.read_text(encoding="utf-8")
        addresses = re.findall(r"(?:url\(|@import)\s*[\"']?([^\"');\s]+)", text)
        found += [f"{path.relative_to(folder)}: {address}" for address in addresses if ABROAD.match(address)]
    return found


def _finished(app: Sphinx, error: Exception | None) -> None:
    for line in [] if error else loaded_from_abroad(Path(app.outdir)):
        log.warning("loaded from another machine: %s", line)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive and the hooks with Sphinx."""
    app.add_directive("drawer", Drawer)
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-skip-member", _skip)
    app.connect("build-finished", _finished)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
