"""Arguments that a verb takes out of the command line itself, before the settings' flags are read.

`args` is the list of a verb's arguments; what is taken is removed from it, and the rest goes to
`overrides.parse`. Errors are ValueError with what was wanted and what was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foleypref.workspace.store import Workspace


def open_workspace(path: str, *, create: bool) -> Workspace:
    """The workspace in a folder, which must be there unless it may be made."""
    from foleypref.workspace.store import Workspace

    if not create and not Path(path).expanduser().is_dir():
        raise ValueError(f"{path}: no such folder; give the folder of a workspace")
    return Workspace(path, create=create)


def asks_help(args: Sequence[str]) -> bool:
    """Whether `-h` or `--help` is among the arguments."""
    return any(arg in ("-h", "--help") for arg in args)


def positional(args: list[str], usage: str) -> str:
    """Take the next argument that is no flag from the front of `args`; `usage` ends with its name."""
    if not args or args[0].startswith("-"):
        found = f"found {args[0]!r}" if args else "found nothing"
        raise ValueError(f"wants its {usage.split()[-1]} first ({found}): `foleypref {usage} …`")
    return args.pop(0)


def take(args: list[str], flag: str) -> str | None:
    """Take `flag VALUE` or `flag=VALUE` out of `args`; None if it is not there."""
    for index, arg in enumerate(args):
        if arg.startswith(f"{flag}="):
            return args.pop(index).partition("=")[2]
        if arg == flag:
            if index + 1 == len(args):
                raise ValueError(f"{flag} wants a value, found nothing after it")
            return args.pop(index) and args.pop(index)
    return None


def take_flag(args: list[str], flag: str) -> bool:
    """Take a flag without a value out of `args`; whether it was there."""
    found = flag in args
    args[:] = [arg for arg in args if arg != flag]
    return found
