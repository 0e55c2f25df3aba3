"""The command `foleypref weights`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from foleypref.cli.main import run
from foleypref.published import registry

pytestmark = pytest.mark.usefixtures("folder")


def test_help_and_list_are_quick(capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys; from foleypref.cli.main import run as r; r(['weights', '--help']); "
        "r(['weights', 'list', 'frieren']); print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.startswith("usage: foleypref weights list|check")
    assert result.stdout.splitlines()[-1] == "[]"


def test_list_shows_the_files_of_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["weights", "list", "mmaudio-small-16k"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines[1:6]]
    assert names == [entry.name for entry in registry.files_for("mmaudio-small-16k")]
    assert "629,395,261" in lines[1]
    assert "CC-BY-NC-4.0" in lines[1]


def test_check_tells_right_from_wrong_from_missing(
    plain: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["weights", "check", "plain-net.pth", "--folder", str(folder)]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.split()[0] == "plain-net.pth"
    assert str(plain) in line
    assert line.endswith(f"{plain.stat().st_size:,}  ok")

    assert run(["weights", "check", f"--folder={folder}", "plain-net.pth", "v1-44.pth"]) == 1
    output = capsys.readouterr().out
    assert "missing" in output
    assert "foleypref weights fetch v1-44.pth" in output
    assert run(["weights", "check", "--folder", str(folder)]) == 0  # no names: files may be missing

    plain.write_bytes(plain.read_bytes()[:-3] + b"abc")
    assert run(["weights", "check", "plain-net.pth", "--folder", str(folder)]) == 1
    assert "the published file has" in capsys.readouterr().out
    plain.write_bytes(b"<html>")
    assert run(["weights", "check", "--folder", str(folder)]) == 1
    output = capsys.readouterr().out
    assert "damaged" in output
    assert "a web page" in output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "wants list, check, fetch or export"),
        (["chekc"], "wants list, check, fetch or export, found 'chekc'"),
        (["list", "mmaudio-smal-16k"], "did you mean 'mmaudio-small-16k'"),
        (["check", "--fodler", "x"], "--fodler.*did you mean --folder"),
        (["fetch"], "wants the NAME"),
        (["fetch", "v1-44.pth", "v1-444.pth"], "did you mean 'v1-44.pth'"),
        (["fetch", "--folder"], "Missing value for argument '--folder'"),
    ],
)
def test_a_mistake_is_a_value_error(args: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(["weights", *args])
