"""The house stands as docs/design/000-house.md draws it: floors, no circles, few files at the door."""

from __future__ import annotations

from pathlib import Path

from tools import house

import foleypref
from foleypref.align import RUN
from foleypref.cli import main as cli
from foleypref.workspace.records import STAGES

PACKAGE = Path(foleypref.__file__).parent
IMPORTS = house.imports_of(PACKAGE)
VERBS = {*STAGES, "align", "generate", "compare", "benchmark"}


def fake_package(tmp_path: Path, **files: str) -> house.Imports:
    """Imports of a package called `house` with these files; `__` in a name is a folder."""
    for name, text in files.items():
        path = tmp_path / "house" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return house.imports_of(tmp_path / "house")


def test_every_import_leads_down() -> None:
    assert house.upward(IMPORTS) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert house.circles(IMPORTS) == []


def test_every_room_and_verb_has_a_floor() -> None:
    floors = {name for floor in house.FLOORS for name in floor}
    assert {house.room_of(module) for module in IMPORTS} - {"__init__"} == floors


def test_rooms_without_neighbours_import_no_other_room() -> None:
    arrows = house.arrows(IMPORTS)
    assert {(a, b) for a, b in arrows if a in house.ALONE} == set()


def test_only_verbs_stand_at_the_root() -> None:
    assert {p.stem for p in PACKAGE.glob("*.py")} == VERBS | {"__init__", "__main__"}


def test_align_and_the_command_line_have_every_stage_in_order() -> None:
    assert [step for step in RUN if step in STAGES] == list(STAGES)
    assert list(cli.STAGES) == list(STAGES)


def test_late_imports_and_those_for_types_count(tmp_path: Path) -> None:
    imports = fake_package(
        tmp_path,
        flow__a="def f():\n    from house.workspace import b\n",
        workspace__b="if TYPE_CHECKING:\n    from house.flow.a import f\n",
    )
    assert house.upward(imports) == [house.Violation("house.flow.a", 2, "house.workspace.b")]
    assert house.circles(imports) == [["house.flow.a", "house.workspace.b"]]


def test_a_stage_may_not_import_another(tmp_path: Path) -> None:
    imports = fake_package(tmp_path, sample="", score="import house.sample\n")
    assert house.upward(imports) == [house.Violation("house.score", 1, "house.sample")]


def test_the_longest_chain_and_its_arrows(tmp_path: Path) -> None:
    imports = fake_package(
        tmp_path, flow__a="", workspace__b="import house.flow.a\n", train="from house.workspace import b\n"
    )
    assert house.longest_chain(imports) == ["house.train", "house.workspace.b", "house.flow.a"]
    assert house.arrows(imports) == {("train", "workspace"), ("workspace", "flow")}


def test_files_and_functions_keep_their_size_and_docstrings_say_something() -> None:
    offences = house.offences(house.read_sources(PACKAGE))
    held = ("docstrings under five words", "files over 400 lines", "functions over 50 lines")
    assert {name: offences[name] for name in held} == {name: [] for name in held}
