"""The hint for an unknown name: the nearest one, all of them, or a part of a long list."""

from __future__ import annotations

import subprocess
import sys

import pytest

from foleypref.settings.nearest import nearest


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("trian", ["train", "test"], "did you mean 'train'?"),
        ("Flow-DOP", ["sft", "flow_dpo"], "did you mean 'flow_dpo'?"),
        ("zzz", ["b", "a"], "there are: b, a"),
        ("zzz", [], "there are: none"),
        ("zzz", map(str, range(42)), f"there are: {', '.join(map(str, range(40)))} and 2 more"),
    ],
)
def test_the_hint_names_the_nearest_or_what_there_is(name: str, known: list[str], hint: str) -> None:
    assert nearest(name, known) == hint


def test_it_costs_nothing_to_import() -> None:
    code = (
        "import sys; before = {*sys.modules}; import foleypref.settings.nearest; "
        "print([m for m in {*sys.modules} - before if m.startswith(('pydantic', 'difflib', 'torch'))])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout == "[]\n"
