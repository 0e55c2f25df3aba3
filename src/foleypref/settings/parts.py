"""Find a part by its name: the one class in the drawer's file of that name.

The file name is the registry: a file dropped in a drawer exists, and nothing is imported until it is asked
for, so a missing optional dependency breaks only the part that wants it. `mmaudio-large-44k-v2` is
`models/backbones/mmaudio.py` with `variant="large-44k-v2"`; `my_package.my_module:MyScorer` is a class of
another package.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError, model_validator
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from foleypref.settings.nearest import nearest

PACKAGE = __name__.partition(".")[0]


class Drawer(NamedTuple):
    """Where a drawer's files lie, as a dotted path below the package."""

    place: str
    opener: str = ""  # module whose `part_of(folder, **settings)` opens a saved folder as a part, if any does

    @property
    def folder(self) -> Path:
        """The folder on disk that holds the drawer's files."""
        return Path(__file__).parents[1].joinpath(*self.place.split("."))


DRAWERS = {
    "models": Drawer("models.backbones", opener="models.saved_part"),
    "scorers": Drawer("scoring.scorers"),
    "negatives": Drawer("training.negatives"),
    "pairings": Drawer("scoring.pairings"),
    "curricula": Drawer("training.curricula"),
    "objectives": Drawer("training.objectives"),
    "metrics": Drawer("evaluation.metrics"),
}
"""The drawers by the names that recipes and the command line use."""


class Settings(BaseModel):
    """Base of everything a user can set: typed, frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, data: Any) -> Any:
        """Refuse unknown settings with the nearest known one, which `extra="forbid"` would not name."""
        errors = []
        for key in data if isinstance(data, dict) else ():
            if key not in cls.model_fields:
                hint = {"hint": f"unknown setting; {nearest(str(key), cls.model_fields)}"}
                problem = PydanticCustomError("unknown_setting", "{hint}", hint)
                errors.append(InitErrorDetails(type=problem, loc=(key,), input=data[key]))
        if errors:
            raise ValidationError.from_exception_data(cls.__name__, errors)
        return data


class Part(Settings):
    """Base of everything in a drawer: its fields are its settings, its defaults the vetted ones."""

    @classmethod
    def part_name(cls) -> str:
        """Return the name by which `find` knows this class."""
        package, _, module = cls.__module__.rpartition(".")
        if package in {f"{PACKAGE}.{drawer.place}" for drawer in DRAWERS.values()}:
            return module
        return f"{cls.__module__}:{cls.__name__}"

    def __eq__(self, other: object) -> bool:
        """Compare settings; what has been loaded does not count."""
        return isinstance(other, Part) and self.settings() == other.settings()

    def __hash__(self) -> int:
        return hash(json.dumps(self.settings(), sort_keys=True))

    def settings(self) -> dict[str, Any]:
        """Return this part as data: its name and its fields, as a recipe stores them."""
        return {"name": self.part_name(), **self.model_dump(mode="json")}

    def with_settings(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, validated."""
        return type(self)(**{**self.model_dump(), **changes})


def names(drawer: str) -> list[str]:
    """Return the parts of a drawer, sorted: every file in it that is not private."""
    return sorted(p.stem for p in _drawer(drawer).folder.glob("*.py") if not p.stem.startswith("_"))


def first_line(source: str) -> str:
    """Return the first line of the docstring of a module's source."""
    return (ast.get_docstring(ast.parse(source)) or "(no description)").splitlines()[0]


def describe(drawer: str, name: str) -> str:
    """Return the first line of a part's module docstring, read without importing it."""
    return first_line((_drawer(drawer).folder / f"{name}.py").read_text(encoding="utf-8"))


def find(drawer: str, name: str) -> type[Part]:
    """Return the class behind `name`. Raises ValueError with the nearest match if there is none."""
    return _locate(drawer, name)[0]


def build(drawer: str, name: str, **settings: Any) -> Part:
    """Return an instance of the part behind `name` (`file`, `file-variant` or `module:Class`).

    A model's `name` may be a folder (with a slash in it) that `foleypref hub save` wrote.
    """
    opener = _drawer(drawer).opener
    if opener and "/" in name:
        part: Part = importlib.import_module(f"{PACKAGE}.{opener}").part_of(name, **settings)
        return part
    cls, variant = _locate(drawer, name)
    if variant is not None:
        if "variant" not in cls.model_fields:
            raise ValueError(f"{drawer}: {cls.part_name()!r} has no variants, found {name!r}")
        settings = {"variant": variant, **settings}
    return cls(**settings)


def _locate(drawer: str, name: str) -> tuple[type[Part], str | None]:
    known = names(drawer)
    if ":" in name:
        return _import_class(*name.split(":", 1)), None
    stem, _, variant = name.partition("-")
    for candidate, rest in ((name.replace("-", "_"), None), (stem, variant or None)):
        if candidate in known:
            return _only_class(drawer, candidate), rest
    raise ValueError(f"{drawer}: no part is called {name!r}; {nearest(name, known)}")


def _only_class(drawer: str, stem: str) -> type[Part]:
    module_name = f"{PACKAGE}.{_drawer(drawer).place}.{stem}"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{drawer}: {stem!r} needs the package {error.name or str(error)!r}; "
            f"install it with `pip install 'foleypref[{stem}]'` or by its name"
        ) from error
    classes = [
        value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Part)
    ]
    own = [cls for cls in classes if cls.__module__ == module_name]
    assert len(own) == 1, f"{module_name} must define exactly one Part, found {len(own)}"
    return own[0]


def _import_class(module_name: str, class_name: str) -> type[Part]:
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cannot import {module_name}:{class_name}: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, Part)):
        raise ValueError(f"{module_name}:{class_name} is not a foleypref Part")
    if inspect.isabstract(cls):
        raise ValueError(f"{module_name}:{class_name} is abstract; name a class that defines all its methods")
    return cls


def _drawer(drawer: str) -> Drawer:
    if drawer not in DRAWERS:
        raise ValueError(f"no drawer is called {drawer!r}; {nearest(drawer, DRAWERS)}")
    return DRAWERS[drawer]


class FromDrawer:
    """Pydantic metadata of a field that takes a part, its name, or `{"name": …, setting: …}`; dumps the last.

    A drawer names its field once: `ModelPart = Annotated[Model, FromDrawer("models"), part_help("models")]`.
    """

    def __init__(self, drawer: str) -> None:
        self.drawer = drawer

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Parse names and mappings before the annotated class is checked."""
        return core_schema.no_info_before_validator_function(
            self.parse,
            handler(source),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda part: part.settings()),
        )

    def parse(self, value: Any) -> Part:
        """Return the part that `value` is or names. Raises ValueError for anything else."""
        if isinstance(value, Part):
            return value
        if isinstance(value, str):
            return build(self.drawer, value)
        if isinstance(value, dict) and "name" in value:
            return build(self.drawer, value["name"], **{k: v for k, v in value.items() if k != "name"})
        raise ValueError(f"a part of {self.drawer!r} is a name or a mapping with 'name', found {value!r}")


def part_help(drawer: str) -> Any:
    """Return the description that --help shows of a field that takes a part of `drawer`."""
    return Field(description=f"a name of `foleypref list {drawer}`, and that part's own settings")
