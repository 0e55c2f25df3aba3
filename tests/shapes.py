"""Shape annotations checked at run time: which modules have them, and the checker that the hook puts on them.

`typeguard.typechecked` cannot be that checker: since version 4 it compiles a function again from its source
and reads "B L D" there as a forward reference. So `checked` gives typeguard the values one by one, and only
those whose annotation holds a shape, as mypy sees to the others.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import jaxtyping
from typeguard import CollectionCheckStrategy, check_type

PACKAGE = Path(__file__).parents[1] / "src" / "foleypref"
CHECKER = f"{__name__}.checked"  # `install_import_hook` takes it by name

F = TypeVar("F", bound=Callable[..., Any])


def annotated_modules() -> list[str]:
    """Names of the modules of the package that import jaxtyping, read from their source."""
    imports = re.compile(r"^\s*(from|import) jaxtyping\b", re.M)
    return sorted(module_name(p) for p in PACKAGE.rglob("*.py") if imports.search(p.read_text("utf-8")))


def module_name(path: Path) -> str:
    """The name that a file of the package is imported by."""
    name = ".".join(("foleypref", *path.relative_to(PACKAGE).with_suffix("").parts))
    return name.removesuffix(".__init__")


def has_shape(hint: Any) -> bool:
    """Whether an annotation holds an array with a shape that a value can be checked against."""
    if get_origin(hint) is Callable:
        return False  # what it is called with is seen where it is called
    if is_named_tuple(hint):
        return any(has_shape(field) for field in get_type_hints(hint).values())
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(has_shape(inner) for inner in get_args(hint) if not is_named_tuple(inner))


def is_named_tuple(hint: Any) -> bool:
    """Whether an annotation is a class of named fields."""
    return inspect.isclass(hint) and issubclass(hint, tuple) and hasattr(hint, "_fields")


def checked(function: F) -> F:
    """`function` with every shape in its signature checked, that of every value of a dict too.

    jaxtyping asks twice: before the call with the parameters' annotations alone, after it with all of them.
    So where a result has a shape the parameters have been seen to, and their letters are still bound.
    """
    hints = {name: hint for name, hint in function.__annotations__.items() if has_shape(hint)}
    signature = inspect.signature(function)

    @wraps(function)
    def before(*args: Any, **kwargs: Any) -> Any:
        for name, value in signature.bind(*args, **kwargs).arguments.items():  # in order: B before 2*B
            if name in hints:
                check(value, hints[name])
        return function(*args, **kwargs)

    @wraps(function)
    def after(*args: Any, **kwargs: Any) -> Any:
        out = function(*args, **kwargs)
        check(out, hints["return"])
        return out

    if "return" in hints:
        return after  # type: ignore[return-value]
    return before if hints else function  # type: ignore[return-value]


def check(value: Any, hint: Any) -> None:
    """Raise typeguard's TypeCheckError where `value` does not fit; jaxtyping turns it into its own."""
    if is_named_tuple(hint):  # typeguard cannot resolve its fields where they are strings
        for name, field in get_type_hints(hint).items():
            check(getattr(value, name), field)
    else:
        check_type(value, hint, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
