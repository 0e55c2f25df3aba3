"""Flags to settings, and settings to the help that shows them: the command line of every verb.

tyro fills the fields of a verb's class (it narrows a part to the class that the default has) and writes the
help. Two thin layers stand around it: `swap_parts` puts another part in place by its name before tyro looks,
and `_one_line` takes tyro's report out of its box.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import itertools
import operator
import re
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import ValidationError, create_model

from foleypref.settings.errors import explain, one_line_errors
from foleypref.settings.parts import Part, Settings

S = TypeVar("S", bound=Settings)


def parse(
    command: type[S], args: Sequence[str], prog: str, summary: str = "", settings: Settings | None = None
) -> S:
    """Return `command` with its fields filled from `args`. Raises ValueError of one line for what is wrong.

    `settings` becomes the field `settings`; its own fields are flags beside those of the command.
    `--objective.beta 300` sets a field, `--objective sft` swaps a part; dashes and underscores are the same.
    `--help` prints the docstrings (`summary` for a command without one) and every flag, and exits.
    """
    import tyro

    rest, notes = list(args), [inspect.cleandoc(command.__doc__ or summary)]
    if settings is not None:
        settings, rest = swap_parts(settings, args)
        flat: Any = Annotated[type(settings), tyro.conf.arg(name="")]  # type: ignore[valid-type]
        command = create_model(command.__name__, __base__=command, settings=(flat, settings))
        notes.append(inspect.cleandoc(type(settings).__doc__ or ""))
        if parts := [f"--{flag} NAME (now {now})" for flag, now in parts_of(settings)]:
            notes.append("\n".join(["Parts, swapped by name (`foleypref list` shows them):", *parts]))
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box), one_line_errors(flags=True):
            return tyro.cli(
                command,
                args=rest,
                prog=prog,
                description="\n\n".join(filter(None, notes)),
                config=(tyro.conf.AvoidSubcommands,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ValueError(_nested_report(stop) or _one_line(box.getvalue())) from None


def swap_parts(settings: S, args: Sequence[str]) -> tuple[S, list[str]]:
    """Replace the parts that `args` name; return the settings and the arguments that are left.

    Settings that are None get their defaults where a flag names something inside them.
    """
    rest, index = [], 0
    while index < len(args):
        flag, equals, value = args[index].partition("=")
        index += 1
        settings, steps = _way(settings, flag)
        part = _part_at_the_end(steps)
        if part is None:
            rest.append(args[index - 1])
            continue
        many = typing.get_origin(part.annotation) is tuple
        values = [value] if equals else []
        while not equals and index < len(args) and not args[index].startswith("--") and (many or not values):
            values.append(args[index])
            index += 1
        if not many and not values:
            raise ValueError(f"{flag} wants the name of a part, found nothing after it")
        names = [None if name in ("none", "None") else name for name in values]
        with one_line_errors(flags=True):
            settings = _changed(settings, part.path, names if many else names[0])
    return settings, rest


class _Step(NamedTuple):
    """A field or an item that a flag's dotted path leads through."""

    path: tuple[Any, ...]  # keys from the top, as the settings spell them
    annotation: Any
    value: Any
    left: tuple[str, ...]  # keys of the flag that come after it


def _way(settings: S, flag: str) -> tuple[S, list[_Step]]:
    """Follow a flag as far as it leads; settings on its way that are None get their defaults."""
    keys = tuple(flag[2:].replace("-", "_").split(".")) if flag.startswith("--") else ()
    steps: list[_Step] = []
    node: Any = settings
    path: tuple[Any, ...] = ()
    for depth, key in enumerate(keys):
        items = _items(node)
        name = next((known for known in items if str(known).replace("-", "_") == key), None)
        if name is None:
            break
        annotation, node, path = *items[name], (*path, name)
        steps.append(_Step(path, annotation, node, keys[depth + 1 :]))
    if steps and steps[-1].value is None and steps[-1].left:
        classes = [cls for cls in typing.get_args(steps[-1].annotation) if _is_settings(cls)]
        if len(classes) == 1:
            return _way(_changed(settings, steps[-1].path, {}), flag)
    return settings, steps


def _items(node: Any) -> dict[Any, tuple[Any, Any]]:
    """Return what lies in settings, a dictionary or a tuple: key -> (annotation, value)."""
    if isinstance(node, Settings):
        return {name: (f.annotation, getattr(node, name)) for name, f in type(node).model_fields.items()}
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, tuple) else ()
    return {key: (type(value), value) for key, value in pairs}


def _part_at_the_end(steps: list[_Step]) -> _Step | None:
    """Return the step of a flag that names a part (`--objective`, `--objective.name`), else None."""
    if steps and steps[-1].left == ("name",) and isinstance(steps[-1].value, Part):
        return steps[-1]._replace(annotation=Part)
    return steps[-1] if steps and not steps[-1].left and _takes_part(steps[-1].annotation) else None


def _takes_part(annotation: Any) -> bool:
    """Return whether a field's type is a part (or a drawer's base), a tuple of parts, or a part or None."""
    return _is_settings(annotation, Part) or any(map(_takes_part, typing.get_args(annotation)))


def _is_settings(annotation: Any, base: type[Settings] = Settings) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, base)


def _changed(settings: S, path: Sequence[Any], value: Any) -> S:
    """Return a copy with the value at `path` replaced, validated once as a whole."""
    data: Any = settings.model_dump()
    node = data
    for key in path[:-1]:
        if isinstance(node[key], tuple):
            node[key] = list(node[key])
        node = node[key]
    node[path[-1]] = value
    return type(settings).model_validate(data)


def parts_of(settings: Settings, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every flag that takes the name of a part, with the parts that are there now."""
    for key, (annotation, value) in _items(settings).items():
        flag = f"{prefix}{str(key).replace('_', '-')}"
        if isinstance(settings, Settings) and _takes_part(annotation):
            parts = value if isinstance(value, tuple) else (value,)
            yield flag, " ".join(p.part_name() for p in parts if isinstance(p, Part)) or "none"
        yield from parts_of(value, f"{flag}.")


def _nested_report(stop: BaseException) -> str:
    """Return pydantic's report of settings inside settings, which tyro put in a box; "" if there is none."""
    prefix, error = "", stop.__context__
    while error is not None and not isinstance(error, ValidationError):
        prefix = str(getattr(error, "arg", prefix)).removeprefix("settings").lstrip(".")
        error = error.__context__
    return "" if error is None else explain(error, prefix, flags=True)


def _one_line(report: str) -> str:
    """Return tyro's boxed report as one line: what is wrong, and the flag it thinks was meant."""
    lines = [line.strip("│╭╮╰╯─ \t") for line in report.splitlines()]
    lines = ["" if re.fullmatch("-*", line) else line for line in lines]  # rules, where the box is ASCII
    message = itertools.takewhile(bool, itertools.dropwhile(operator.not_, lines[1:]))
    hints = [after for before, after in itertools.pairwise(lines) if before.startswith("Perhaps you meant")]
    hint = f"; did you mean {hints[0].split()[0]}?" if hints else ""
    text = re.sub(r"^Missing from [^:]+: ", "missing: ", " ".join(message))
    return (text or "the arguments cannot be read") + hint
