"""What is wrong with settings, in a line: pydantic's report with dotted paths and the nearest known key."""

from __future__ import annotations

import contextlib
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from foleypref.settings.nearest import nearest
from foleypref.settings.parts import Part, Settings


@contextlib.contextmanager
def one_line_errors(source: str = "", data: Any = None) -> Iterator[None]:
    """Turn pydantic's report into a ValueError of one line; `source` begins it, `data` is what was read."""
    try:
        yield
    except ValidationError as error:
        lines = "; ".join(explain(error, data))
        raise ValueError(f"{source}: {lines}" if source else lines) from error


def explain(error: ValidationError, data: Any = None) -> list[str]:
    """What is wrong, a line an error: dotted path, what was found, the nearest known key."""
    root = _subclass(Settings, lambda cls: cls.__name__ == error.title)
    lines = []
    for item in error.errors():
        path, loc = ".".join(map(str, item["loc"])), item["loc"]
        if item["type"] == "extra_forbidden":
            known = _fields_at(root, loc[:-1], data)
            lines.append(f"{path}: unknown setting" + (f"; {nearest(str(loc[-1]), known)}" if known else ""))
        elif isinstance(item.get("ctx", {}).get("error"), ValueError):
            lines.append(f"{path}: {item['msg'].removeprefix('Value error, ')}")
        else:
            lines.append(f"{path}: {item['msg']}, found {item['input']!r}")
    return lines


def _subclass(base: type, wanted: Callable[[Any], bool]) -> type | None:
    queue: list[type] = [base]
    while queue:
        cls = queue.pop()
        if wanted(cls):
            return cls
        queue += cls.__subclasses__()
    return None


def _fields_at(cls: Any, loc: Sequence[int | str], data: Any) -> list[str]:
    """Field names of the class that `loc` leads to from `cls`; a part is known by its name in `data`."""
    for key in loc:
        if isinstance(cls, type) and issubclass(cls, Settings):
            cls = cls.model_fields[str(key)].annotation if key in cls.model_fields else None
        elif typing.get_args(cls):
            cls = typing.get_args(cls)[-1 if typing.get_origin(cls) is dict else 0]
        while typing.get_origin(cls) in (typing.Union, types.UnionType, typing.Annotated):
            cls = typing.get_args(cls)[0]
        data = _item(data, key)
        if isinstance(cls, type) and issubclass(cls, Part) and isinstance(data, dict):
            name = str(data.get("name"))
            known = {name, name.replace("-", "_"), name.partition("-")[0]}
            cls = _subclass(cls, lambda part: part.part_name() in known)  # noqa: B023  called at once
    return list(cls.model_fields) if isinstance(cls, type) and issubclass(cls, Settings) else []


def _item(data: Any, key: int | str) -> Any:
    try:
        return data[key]
    except (KeyError, IndexError, TypeError):
        return None
