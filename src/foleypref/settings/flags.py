"""Flags to settings and back to words: the command line of every verb.

tyro fills the fields (it narrows a part to the class the default has) and writes the help. Two thin layers
stand around it: `swap_parts` puts another part in place by its name before tyro looks, and `_one_line` takes
tyro's report out of its box. What pydantic reports is worded in `setting_errors`.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import itertools
import re
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from foleypref.settings.errors import one_line_errors
from foleypref.settings.parts import Part, Settings

S = TypeVar("S", bound=Settings)


def parse(default: S, args: Sequence[str], prog: str, note: str = "") -> S:
    """`default` with the flags in `args` applied. Raises ValueError with one line about what is wrong.

    `--train.objective.beta 300` sets a field, `--train.objective sft` swaps a part; dashes and underscores
    are the same. `--help` prints `note` and every flag with its present value, and exits.
    """
    import tyro

    settings, rest = swap_parts(default, args)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                type(settings),
                default=settings,
                args=rest,
                prog=prog,
                description=_description(settings, note),
                config=(tyro.conf.AvoidSubcommands,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ValueError(_one_line(errors.getvalue())) from None


def swap_parts(default: S, args: Sequence[str]) -> tuple[S, list[str]]:
    """Replace the parts that `args` name, and return the settings with the arguments that are left.

    Settings that are None get their defaults where a flag names something inside them.
    """
    settings, rest, index = _woken(default, args), [], 0
    while index < len(args):
        flag, equals, value = args[index].partition("=")
        path = flag[2:].replace("-", "_") if flag.startswith("--") else ""
        place = _part_place(settings, path)
        index += 1
        if place is None:
            rest.append(args[index - 1])
            continue
        keys, many = place
        values = [value] if equals else []
        while not equals and index < len(args) and not args[index].startswith("--") and (many or not values):
            values.append(args[index])
            index += 1
        if not many and not values:
            raise ValueError(f"{flag} wants the name of a part, found nothing after it")
        with one_line_errors(flag):
            settings = _replaced(
                settings, keys, [_unquote(v) for v in values] if many else _unquote(values[0])
            )
    return settings, rest


def _woken(settings: S, args: Sequence[str]) -> S:
    """`--negatives.share 0.5` where `negatives` is None: its defaults first."""
    for arg in (arg for arg in args if arg.startswith("--")):
        keys = arg.partition("=")[0].removeprefix("--").replace("-", "_").split(".")
        node: Any = settings
        for depth, key in enumerate(keys[:-1]):
            field = type(node).model_fields.get(key) if isinstance(node, Settings) else None
            if field is None:
                break
            if getattr(node, key) is None and (asleep := _optional(field.annotation)) is not None:
                settings = _replaced(settings, keys[: depth + 1], asleep())
                break
            node = getattr(node, key)
    return settings


def _optional(annotation: Any) -> type[Settings] | None:
    """The settings' class of a field that takes it or None."""
    inner = typing.get_args(annotation) if _is_union(annotation) else ()
    found = [cls for cls in inner if isinstance(cls, type) and issubclass(cls, Settings)]
    return found[0] if len(found) == 1 else None


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def parts_of(settings: Settings, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every flag that takes the name of a part, with the parts that are there now."""
    for name, field in type(settings).model_fields.items():
        value, flag = getattr(settings, name), f"{prefix}{name.replace('_', '-')}"
        if _takes_part(field.annotation):
            found = value if isinstance(value, tuple) else (value,)
            yield flag, " ".join(p.part_name() for p in found if isinstance(p, Part)) or "none"
        for inner, child in _children(value):
            yield from parts_of(child, f"{flag}.{inner}" if inner else f"{flag}.")


def _children(value: Any) -> Iterator[tuple[str, Settings]]:
    if isinstance(value, Settings):
        yield "", value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, tuple) else ()
    yield from ((f"{key}.", item) for key, item in items if isinstance(item, Settings))


def _part_place(settings: Settings, path: str) -> tuple[list[str], bool] | None:
    """Keys down to the part (or tuple of parts) `path` names, and whether it is a tuple; None if none."""
    keys = [key for key in path.split(".") if key]
    if not keys:
        return None
    node: Any = settings
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if last and key == "name" and isinstance(node, Part) and "name" not in type(node).model_fields:
            return keys[:-1], False
        if isinstance(node, Settings):
            field = type(node).model_fields.get(key)
            if field is None:
                return None
            if last:
                many = typing.get_origin(field.annotation) is tuple
                return (keys, many) if _takes_part(field.annotation) else None
            node = getattr(node, key)
        else:
            found = _lookup(node, key)
            if found is None:
                return None
            node, keys[depth] = found
            if last:
                return (keys, False) if isinstance(node, Part) else None
    return None


def _lookup(node: Any, key: str) -> tuple[Any, str] | None:
    """The item of a dict or tuple that `key` names, and the key as the node spells it."""
    if isinstance(node, dict):
        for known in node:
            if str(known).replace("-", "_") == key:
                return node[known], known
    if isinstance(node, tuple) and key.isdigit() and int(key) < len(node):
        return node[int(key)], key
    return None


def _takes_part(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return True
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, tuple, typing.Annotated):
        return any(_takes_part(inner) for inner in typing.get_args(annotation))
    return False


def _replaced(node: Any, keys: Sequence[str], value: Any) -> Any:
    """A copy of `node` with the value at `keys` replaced, validated on the way up."""
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    if isinstance(node, dict):
        return {**node, key: _replaced(node[key], rest, value)}
    if isinstance(node, tuple):
        at = int(key)
        return (*node[:at], _replaced(node[at], rest, value), *node[at + 1 :])
    shallow = {name: getattr(node, name) for name in type(node).model_fields}
    return type(node).model_validate({**shallow, key: _replaced(shallow[key], rest, value)})


def _unquote(name: str) -> str | None:
    return None if name in ("none", "None") else name


def _description(settings: Settings, note: str) -> str:
    parts = [f"--{flag} NAME (now {now})" for flag, now in parts_of(settings)]
    if parts:
        parts.insert(0, "Parts, swapped by name (`foleypref list` shows them):")
    return "\n\n".join(filter(None, [inspect.getdoc(type(settings)), note, "\n".join(parts)]))


def _one_line(report: str) -> str:
    """tyro's boxed report as one line: what is wrong, and the flag it thinks was meant."""
    lines = [line.strip("│╭╮╰╯─ \t") for line in report.splitlines()]
    message, hint = [], ""
    for line in lines[1:]:
        if not line:
            break
        message.append(line)
    for before, line in itertools.pairwise(lines):
        if before.startswith("Perhaps you meant"):
            hint = f"; did you mean {line.split()[0]}?"
    text = " ".join(message) or "the arguments cannot be read"
    text = re.sub(r"^Error parsing \w+: \d+ validation errors? for \w+ ", "", text)  # pydantic inside tyro
    return re.sub(r" \[type=.*", "", text) + hint
