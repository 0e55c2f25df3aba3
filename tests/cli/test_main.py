"""The command line: quick help, one line and exit code 2 for a user's mistake, a list that misses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from foleypref.cli import main as cli
from foleypref.recipes.names import recipe_names
from foleypref.settings import parts as plugins
from foleypref.workspace.records import Failure
from foleypref.workspace.store import Workspace

HEAVY = ("torch", "pydantic", "tyro", "numpy", "pyarrow", "rich", "yaml", "av")


def run(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as a user gives it."""
    return subprocess.run(
        [sys.executable, "-m", "foleypref", *args],
        capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )  # fmt: skip


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    before = os.times()
    result = run("--help")
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert spent < 0.5  # CPU seconds, whatever else the machine does; it takes 0.03
    assert result.returncode == 0
    for verb in (*cli.STAGES, *cli.OTHERS):
        assert f"\n  {verb} " in result.stdout
    code = (
        "import sys, foleypref.cli.main as c; c.main(['--help']); "
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert loaded.stdout.splitlines()[-1] == "[]"


MISTAKES = {
    "unknown verb": (["algin"], "foleypref: no verb is called 'algin'; did you mean 'align'?"),
    "missing workspace": (["show", "/no/such"], "foleypref show: /no/such: no such folder"),
    "no workspace": (["score"], "foleypref score: missing: WORKSPACE"),
    "recipe after a flag": (["align", "--until", "fit"], "wants its RECIPE first, found '--until'"),
    "missing folder": (["ingest", "ws", "/no/such"], "foleypref ingest: /no/such: no such folder"),
    "unknown recipe": (["align", "world_dmeo"], "did you mean 'world_demo'?"),
    "missing yaml": (["align", "nope.yaml"], "foleypref align: nope.yaml: no such file"),
    "bad override": (["align", "world_demo", "--train.objektive", "sft"], "--train.objektive"),
    "bad value": (["demo", "--train.max-steps", "many"], "--train.max-steps"),
    "bad part": (["demo", "--train.objective", "sfft"], "did you mean 'sft'?"),
    "bad stage": (["demo", "--workspace", "ws", "--until", "trian"], "did you mean 'train'?"),
    "bad size": (["demo", "--size", "huge"], "--size is one of ci, small, full"),
    "unknown drawer": (["list", "scorer"], "did you mean 'scorers'?"),
    "no model": (["train", "ws"], "wants --model NAME"),
    "bad world": (["world", "mkae"], "wants make or rate"),
    "missing video": (["generate", "/no/such.mp4"], "/no/such.mp4 does not exist"),
    "empty workspace": (["fit", "empty"], "foleypref fit: "),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args, message = MISTAKES[name]
    monkeypatch.chdir(tmp_path)
    Workspace(tmp_path / "empty")
    assert cli.main(args) == 2
    captured = capsys.readouterr()
    line = captured.err.splitlines()[-1]
    assert line.startswith("foleypref")
    assert message in line
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_a_mistake_in_a_process_of_its_own() -> None:
    result = run("lst")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "foleypref: no verb is called 'lst'; did you mean 'list'?\n"
    shown = run("lst", FOLEYPREF_DEBUG="1")
    assert "Traceback" in shown.stderr


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(args: list[str]) -> int:
        raise RuntimeError("a bug")

    monkeypatch.setattr(cli, "run", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["list"])


def test_ctrl_c_is_one_line_and_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(args: list[str]) -> int:
        signal.raise_signal(signal.SIGINT)
        return 0

    monkeypatch.setattr(cli, "run", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        assert cli.main(["train", "x"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "stopped; the same command goes on where it was\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_is_silent(unbuffered: str) -> None:
    result = subprocess.run(
        f"{sys.executable} -m foleypref list | true; echo ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )  # fmt: skip
    assert result.stderr == ""
    assert result.stdout == "0\n"


def test_list_names_every_file_of_every_drawer(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    blocks = dict(block.split(":\n", 1) for block in capsys.readouterr().out.split("\n\n"))
    listed = {drawer: [line.split()[0] for line in text.splitlines()] for drawer, text in blocks.items()}
    assert listed.pop("recipes") == recipe_names()
    for drawer, place in plugins.DRAWERS.items():
        files = sorted(p.stem for p in place.folder.glob("*.py") if p.stem[0] != "_")
        assert listed[drawer] == (files or ["(none)"])
    assert cli.main(["list", "objectives"]) == 0
    assert capsys.readouterr().out.startswith("objectives:\n")


def test_list_imports_neither_parts_nor_torch() -> None:
    code = (
        "import sys, foleypref.cli.main as c; c.main(['list']); "
        "own = ('foleypref.scoring.scorers', 'foleypref.models.backbones', 'foleypref.world', 'torch'); "
        "print([m for m in sys.modules if m.startswith(own)])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.splitlines()[-1] == "[]"


def test_env_says_what_a_bug_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["env"]) == 0
    rows = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert {"foleypref", "python", "torch", "numpy", "av", "os", "cpus", "gpu"} <= rows.keys()
    assert rows["python"] == sys.version.split()[0]
    assert int(rows["cpus"]) >= 1


def test_show_counts_and_gives_the_reasons(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    workspace.append([Failure.make("ingest", name, "no sound") for name in ("a", "b", "c")])
    folder = workspace.run_folder("first")
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"step": 10}\n{"step": 20}\n{"st')  # torn by a kill
    assert cli.main(["show", str(workspace.root)]) == 0
    text = capsys.readouterr().out
    assert f"{'failures':<12}{3:>8}" in text
    assert "     3  ingest: no sound" in text
    assert "first  step 20" in text


@pytest.mark.parametrize("verb", [*cli.STAGES, "align", "demo", "generate", "world", "list", "show", "env"])
def test_every_verb_has_its_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = cli.main([verb, "--help"])
    except SystemExit as stop:
        code = stop.code or 0
    assert code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: foleypref {verb}")
    if verb in cli.STAGES:
        assert "--config FILE.yaml" in text


@pytest.mark.parametrize("what", ["make", "rate"])
def test_the_worlds_verbs_have_their_help(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["world", what, "--help"])
    assert not stop.value.code
    assert capsys.readouterr().out.startswith(f"usage: foleypref world {what}")
