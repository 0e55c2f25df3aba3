"""The file name is the registry: names, variants, dotted paths, nearest matches, and parts as data."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import ValidationError

from foleypref.settings import parts as plugins
from foleypref.settings.parts import FromDrawer, Part, Settings, build, describe, find, names, part_help

GAIN = '''"""Louder or softer.

More words.
"""
from foleypref.settings.parts import Part


class Gain(Part):
    db: float = 6.0
    variant: str = "plain"
'''


class Outside(Part):
    """A part of somebody else's package."""

    width: int = 3


class Plain:
    """Not a part at all."""


class Holder(Settings):
    inner: Annotated[Part, FromDrawer("negatives"), part_help("negatives")]
    mode: Literal["a", "b"] = "a"


@pytest.fixture
def drawer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The drawer `negatives`, for this test a folder with one file, `gain.py`."""
    package = importlib.import_module("foleypref.training.negatives")
    monkeypatch.setattr(package, "__path__", [str(tmp_path)])
    monkeypatch.setattr(plugins.Drawer, "folder", property(lambda drawer: tmp_path))
    (tmp_path / "gain.py").write_text(GAIN)
    (tmp_path / "_private.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "__init__.py").write_text("")
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("foleypref.training.negatives."):
            del sys.modules[name]


def test_a_file_dropped_in_a_drawer_exists_without_being_imported(drawer: Path) -> None:
    assert names("negatives") == ["gain"]
    (drawer / "broken.py").write_text('"""Broken."""\nraise RuntimeError("imported")')
    assert names("negatives") == ["broken", "gain"]
    assert describe("negatives", "broken") == "Broken."
    assert describe("negatives", "gain") == "Louder or softer."
    assert find("negatives", "gain").__name__ == "Gain"


def test_a_name_with_a_variant_is_the_file_with_that_variant(drawer: Path) -> None:
    (drawer / "low_pass.py").write_text(GAIN.replace("Gain", "LowPass").replace("    variant", "    other"))
    assert build("negatives", "gain-tall-x").settings() == {"name": "gain", "db": 6.0, "variant": "tall-x"}
    assert build("negatives", "low-pass").part_name() == "low_pass"  # dashes for underscores, no variant
    with pytest.raises(ValueError, match="'low_pass' has no variants"):
        build("negatives", "low_pass-x")


def test_a_missing_dependency_names_itself(drawer: Path) -> None:
    (drawer / "fancy.py").write_text("import a_package_that_is_not_there\n" + GAIN)
    with pytest.raises(
        ValueError, match=r"'fancy' needs the package 'a_package_that_is_not_there'.*\[fancy\]"
    ):
        find("negatives", "fancy")
    assert find("negatives", "gain").__name__ == "Gain"


@pytest.mark.parametrize(
    ("name", "message"),
    [("gian", "did you mean 'gain'"), ("zzz", "there are: gain"), ("GAIN-x", "no part is called 'GAIN-x'")],
)
def test_an_unknown_name_gets_the_nearest_match(drawer: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("negatives", name)


def test_a_dotted_path_reaches_outside() -> None:
    part = build("negatives", f"{__name__}:Outside", width=5)
    assert part == Outside(width=5)
    assert part.settings() == {"name": f"{__name__}:Outside", "width": 5}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{__name__}:Plain", "is not a foleypref Part"),
        (f"{__name__}:Absent", "cannot import"),
        ("no.such.module:X", "cannot import no.such.module:X"),
    ],
)
def test_a_bad_dotted_path_says_why(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("negatives", name)


def test_an_unknown_drawer_gets_the_nearest_match() -> None:
    with pytest.raises(ValueError, match="did you mean 'scorers'"):
        names("scorer")


def test_settings_are_frozen_and_refuse_unknown_keys() -> None:
    with pytest.raises(ValidationError, match="unknown setting; did you mean 'width'"):
        Outside(widht=3)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="frozen"):
        Outside().width = 4  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Outside().with_settings(width="wide")
    assert Outside().with_settings(width=9).width == 9


@pytest.mark.parametrize("value", ["gain", {"name": "gain"}, {"name": "gain", "db": 6.0}])
def test_a_part_field_takes_a_name_or_data_and_dumps_data(drawer: Path, value: object) -> None:
    holder = Holder(inner=value)
    assert holder.inner == find("negatives", "gain")()
    data = holder.model_dump(mode="json")
    assert data == {"inner": {"name": "gain", "db": 6.0, "variant": "plain"}, "mode": "a"}
    assert Holder.model_validate(data) == holder


def test_a_part_field_refuses_what_is_no_part(drawer: Path) -> None:
    for value in (7, {"db": 1.0}, None):
        with pytest.raises(ValidationError, match="is a name or a mapping with 'name'"):
            Holder(inner=value)
    with pytest.raises(ValidationError, match="did you mean 'gain'"):
        Holder(inner="gainn")


@pytest.mark.parametrize("drawer_name", plugins.DRAWERS)
def test_every_part_has_one_line_about_it(drawer_name: str) -> None:
    for name in names(drawer_name):
        line = describe(drawer_name, name)
        assert line != "(no description)", name
        assert len(line) <= 130, f"{drawer_name}/{name}: {line}"
