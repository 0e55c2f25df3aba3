"""Pydantic's report as one line: the dotted path of each setting that is wrong, why, and what was found."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pydantic import ValidationError


@contextlib.contextmanager
def one_line_errors(source: str = "", *, flags: bool = False) -> Iterator[None]:
    """Raise pydantic's report as a ValueError of one line that `source` (a file, a folder) begins."""
    try:
        yield
    except ValidationError as error:
        raise ValueError((f"{source}: " if source else "") + explain(error, flags=flags)) from error


def explain(error: ValidationError, prefix: str = "", *, flags: bool = False) -> str:
    """Return the errors of a report, each as `path: why`, or with `flags` as `--path: why`.

    `prefix` is where the reported settings lie within others, as a dotted path.
    """
    rows = [(".".join(filter(None, (prefix, path))), why) for path, why in problems(error)]
    if flags:
        rows = [(path and f"--{path.replace('_', '-')}", why) for path, why in rows]
    return "; ".join(f"{path}: {why}" if path else why for path, why in rows)


def problems(error: ValidationError) -> Iterator[tuple[str, str]]:
    """Yield the dotted path of each setting that is wrong ("" for all of them together), and why."""
    for item in error.errors():
        why = item["msg"].removeprefix("Value error, ")
        if item["type"] not in ("value_error", "unknown_setting"):  # ours say themselves what was found
            why += f", found {item['input']!r}"
        yield ".".join(map(str, item["loc"])), why
