"""The help of every verb: its usage line, every argument once, and every setting once with its default."""

from __future__ import annotations

import importlib
import re

import pytest

from foleypref.cli import main as cli
from foleypref.settings.flags import parts_of
from foleypref.settings.parts import Settings

VERBS = {name: verb for name, verb in {**cli.STAGES, **cli.OTHERS, **cli.BELOW}.items() if verb.command}
GROUPS = [name for name, verb in cli.OTHERS.items() if not verb.command]
USAGES = {
    **dict.fromkeys(cli.STAGES, "[-h] [OPTIONS] WORKSPACE"),
    "ingest": "[-h] [OPTIONS] WORKSPACE FOLDER",
    "align": "[-h] [OPTIONS] RECIPE",
    "plan": "[-h] [OPTIONS] RECIPE",
    "generate": "[-h] [OPTIONS] [VIDEO]",
    "compare": "[-h] [OPTIONS] RUN_A RUN_B",
    "annotate": "[-h] [OPTIONS] WORKSPACE",
    "show": "[-h] WORKSPACE",
    "env": "[-h]",
    "world rate": "[-h] [OPTIONS] WORKSPACE",
    "weights fetch": "[-h] NAME … [--folder DIR] [--quiet]",
    "hub save": "[-h] RUN -o FOLDER [--merged]",
    "hub push": "[-h] FOLDER OWNER/NAME [--public]",
    "pairs export": "[-h] WORKSPACE FOLDER",
    "pairs import": "[-h] WORKSPACE FOLDER",
    "annotate export": "[-h] WORKSPACE FILE",
    "annotate import": "[-h] WORKSPACE FILE",
}


def help_of(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What `foleypref NAME --help` prints, without the frames of its boxes."""
    with pytest.raises(SystemExit) as stop:
        cli.main([*name.split(), "--help"])
    assert not stop.value.code
    return re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().out)


@pytest.mark.parametrize("name", VERBS)
def test_every_argument_and_setting_is_shown_once(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(name, capsys)
    assert text.startswith(f"usage: foleypref {name} {USAGES.get(name, '[-h]')}")
    module, _, class_name = VERBS[name].command.partition(":")
    command = getattr(importlib.import_module(f"foleypref.cli.{module}"), class_name)
    for field, info in command.model_fields.items():
        if field != "settings" and "Positional" not in repr(info.metadata):  # those are in the usage line
            assert f"--{field.replace('_', '-')}" in text
    settings = command.defaults(["--help"])
    if settings is not None:
        check_settings(settings, text)


def check_settings(settings: Settings, text: str) -> None:
    """Parts are shown by name, numbers with their default, settings inside settings by their own flags."""
    parts = dict(parts_of(settings))
    for part, now in parts.items():
        assert f"--{part} NAME (now {now})" in text
    for field in type(settings).model_fields:
        flag, value = field.replace("_", "-"), getattr(settings, field)
        if flag in parts:
            continue
        rows = re.findall(rf"^ +--{flag}(?:, --no-{flag})?(?: .*)?$", text, re.M)
        nested = isinstance(value, dict) or "Settings" in repr(type(settings).model_fields[field].annotation)
        assert len(rows) == 1 or (nested and not rows), flag
        if rows and isinstance(value, int | float):
            after = text.split(rows[0])[1].partition("\n  --")[0]
            assert f"(default: {value}" in " ".join(f"{rows[0]} {after}".split()), flag


@pytest.mark.parametrize("name", GROUPS)
def test_a_verb_of_two_words_is_listed_by_its_first(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: foleypref {name} ")
    for below, verb in cli.BELOW.items():
        assert (verb.summary in text) == below.startswith(f"{name} ")
    assert cli.main([name]) == 2
    assert "found nothing" in capsys.readouterr().err


def test_the_benchmark_has_its_own_help(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of("evaluate --against VIDEOS", capsys)
    assert text.startswith("usage: foleypref evaluate [-h] [OPTIONS] SOUNDS …")
    assert "--compare SOUNDS …" in text
