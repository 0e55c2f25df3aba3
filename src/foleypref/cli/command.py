"""What a verb of the command line is: a class whose fields are its arguments, and a method that does it."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import FlagCreatePairsOff, Positional, arg

from foleypref.settings.parts import Settings

if TYPE_CHECKING:
    from foleypref.workspace.store import Workspace

Switch = Annotated[bool, FlagCreatePairsOff]
"""A flag without a value and without a `--no-` of its own."""

WorkspaceFolder = Annotated[
    Path, Positional, arg(metavar="WORKSPACE", help="the folder that holds all records")
]


class Command(Settings, ABC):
    """Base of every verb; the docstring of a subclass is shown by its --help."""

    @classmethod
    def defaults(cls, args: Sequence[str]) -> Settings | None:
        """Return the settings whose fields are flags of this verb too, as `args` choose them."""
        return None

    @abstractmethod
    def run(self) -> int | None:
        """Do it. Returns the exit code if it is not 0."""


class Configured(Command):
    """Base of the verbs that have settings beside their own arguments."""

    settings_class: ClassVar[str]  # module:Class in the package
    placeholders: ClassVar[dict[str, Any]] = {}  # for settings without a default
    settings: Any = None  # what `defaults` returns, with the flags applied

    @classmethod
    def defaults(cls, args: Sequence[str]) -> Settings:
        settings: Settings = named(cls.settings_class)(**cls.placeholders)
        return settings


def named(place: str) -> Any:
    """Import what lies at module:name in the package."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"foleypref.{module}"), name)


def open_workspace(folder: Path | str, *, create: bool = False) -> Workspace:
    """Open the workspace in a folder, which has to be there unless it may be made."""
    from foleypref.workspace.store import Workspace

    if not create and not Path(folder).expanduser().is_dir():
        raise ValueError(f"{folder}: no such folder; give the folder of a workspace")
    return Workspace(folder, create=create)


def asks_help(args: Sequence[str]) -> bool:
    """Return whether `-h` or `--help` is among the arguments."""
    return any(word in ("-h", "--help") for word in args)


def value_of(flag: str, args: Sequence[str]) -> str | None:
    """Return what follows `flag` in the arguments, which stay as they are; None if it is not there."""
    for word, after in zip(args, [*args[1:], None]):
        name, equals, value = word.partition("=")
        if name == flag:
            return value if equals else after
    return None


def first(args: Sequence[str], name: str) -> str:
    """Return the first argument. Raises ValueError if it is a flag, or if there is none."""
    if not args or args[0].startswith("-"):
        raise ValueError(f"wants its {name} first, found {args[0]!r}" if args else f"wants its {name}")
    return args[0]
