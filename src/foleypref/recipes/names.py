"""The recipes that come with the package: their names and first lines, read without importing them."""

from __future__ import annotations

from pathlib import Path

from foleypref.settings.parts import first_line

PRESETS = Path(__file__).parent / "presets"


def recipe_names() -> list[str]:
    """Return the names of the preset recipes, sorted."""
    return sorted(path.stem for path in PRESETS.glob("*.py") if path.stem[0] != "_")


def describe_recipe(name: str) -> str:
    """Return the first line of a preset's docstring."""
    return first_line((PRESETS / f"{name}.py").read_text(encoding="utf-8"))
