"""The documents tell the truth: their commands parse, their tree is the tree, their links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from foleypref.cli import hub, weights
from foleypref.cli import main as cli
from foleypref.evaluate import EvaluateSettings
from foleypref.models.saved import CONFIG, FORMAT, WEIGHTS
from foleypref.recipes.recipe import resolve
from foleypref.scoring.scorers import ScoreItem
from foleypref.settings.yaml import dump
from tests.judged import scores_of

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
PLACEHOLDERS = {"WORKSPACE": "runs/demo", "RECIPE": "world_demo", "NAME": "sft"}

BARE = ("demo", "list", "env")  # verbs that are whole commands


def commands_in(text: str) -> list[list[str]]:
    """Arguments of every `foleypref …` in code: indented lines, and backticks that hold more than a verb."""
    text = re.sub(r" \\\n\s+", " ", text)  # a command over several lines
    found = re.findall(r"^ {4}(?:\.venv/bin/)?foleypref (.+)$", text, re.M)
    found += re.findall(r"`(?:\.venv/bin/)?foleypref ([^`:]+)`", text.replace("\n", " "))
    lines = [shlex.split(line, comments=True) for line in found]
    return [
        [PLACEHOLDERS.get(word, word) for word in line]
        for line in lines
        if (line[0] != "VERB" and line[1:]) or line[0] in BARE
    ]


COMMANDS = sorted({tuple(args) for path in DOCUMENTS for args in commands_in(path.read_text())})


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) >= 20
    assert {args[0] for args in COMMANDS} >= set(cli.STAGES) | set(cli.OTHERS)


@pytest.fixture(scope="module")
def yaml_texts() -> dict[str, str]:
    recipes = {"strong": "world_demo", "mm": "v2a_dpo_mmaudio-small"}
    texts = {f"runs/{folder}/recipe.yaml": dump(resolve(name)) for folder, name in recipes.items()}
    written = re.compile(r"^`(\w+\.py)`:\n\n```python\n(.*?)```", re.S | re.M)  # as a page says to
    files = [found for path in DOCUMENTS for found in written.findall(path.read_text())]
    return {"evaluate.yaml": dump(EvaluateSettings()), **texts, **dict(files)}


def make_hub_folder(folder: Path) -> None:
    """What `--model FOLDER` looks at before anything is loaded."""
    folder.mkdir()
    save_file({"a": torch.zeros(1)}, folder / WEIGHTS)
    said: dict[str, Any] = {"kind": "model", "weights_file": WEIGHTS, "model": {"name": "world"}}
    terms = {"license": "apache-2.0", "non_commercial": False, "weights_used": [], "foleypref_version": "0"}
    (folder / CONFIG).write_text(json.dumps({"format": FORMAT, **said, **terms}))


@pytest.fixture
def nothing_runs(yaml_texts: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A folder with what the commands name, and every verb replaced by a note of its arguments."""
    ran: list[Any] = []

    def note(*args: Any, **more: Any) -> list[Any]:
        ran.append(args)
        return []

    monkeypatch.chdir(tmp_path)
    (tmp_path / "VIDEOS").mkdir()
    for name in ("strong", "mm", "clips"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    make_hub_folder(tmp_path / "runs" / "tuned")
    for name, text in yaml_texts.items():
        (tmp_path / name).write_text(text)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extend.md").read_text(), re.S)
    (tmp_path / "strong.py").write_text(blocks[-1])
    for verb in cli.STAGES:
        monkeypatch.setattr(f"foleypref.{verb}.{verb}", note)
    monkeypatch.setattr("foleypref.align.align", lambda *args, **more: ran.append(args))
    for name in (
        "align.make_world",
        "align.steps_until",
        "recipes.launch.commands",
        "recipes.launch.launch_text",
        "recipes.launch.launches",
        "recipes.plan.plan_text",
        "annotate.labels.export_labels",
        "annotate.labels.import_labels",
        "annotate.serve.annotate",
        "benchmark.benchmark",
        "compare.compare",
        "compare.show_result",
        "generate.generate",
        "hub.audioscores.save_audioscore",
        "hub.remote.push_to_hub",
        "hub.saving.save_pretrained",
        "scoring.pairs_folder.export_pairs",
        "scoring.pairs_folder.import_pairs",
        "world.make.make",
        "scoring.simulated_raters.simulate_ratings",
        "cli.about.show_workspace",
    ):
        monkeypatch.setattr(f"foleypref.{name}", note)
    for command in (weights.List, weights.Check, weights.Fetch, weights.Export, hub.Load):
        monkeypatch.setattr(command, "run", lambda self: ran.append(self))
    for module in ("hub", "about", "recipes", "stages", "verbs"):
        monkeypatch.setattr(f"foleypref.cli.{module}.open_workspace", note)
    return ran


@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_every_command_in_the_documents_parses(args: tuple[str, ...], nothing_runs: list[Any]) -> None:
    assert cli.main(args) == 0
    assert nothing_runs or args[0] in ("list", "env")


def tree_paths() -> list[str]:
    """The paths of README's file tree, relative to the root; several names may share a line."""
    block = next(
        b for b in re.findall(r"```\n(.*?)```", (ROOT / "README.md").read_text(), re.S) if "src/" in b
    )
    paths, parent = [], ""
    for line in block.splitlines():
        names = re.split(r"\s{3,}", line.strip())[0].split()
        if line.startswith("  "):
            paths += [parent + name for name in names]
        else:
            paths += names
            parent = names[0]
    return paths


def test_the_tree_in_readme_is_the_tree() -> None:
    listed = tree_paths()
    for path in listed:
        assert (ROOT / path).exists(), f"README lists {path}, which is not there"
    package = ROOT / "src" / "foleypref"
    there = [f"src/foleypref/{p.name}" for p in package.glob("*.py") if not p.stem.startswith("__")]
    there += [f"src/foleypref/{p.parent.name}/" for p in package.glob("*/__init__.py")]
    assert sorted(set(there) - set(listed)) == [], "README's tree lacks these"
    assert len(listed) == len(set(listed))


def test_links_lead_somewhere() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_files_named_in_the_documents_exist() -> None:
    """Paths in backticks that look like ours; NAME stands for anything."""
    package = ROOT / "src" / "foleypref"
    for path in DOCUMENTS:
        for name in re.findall(r"`((?:src|tests|docs|[a-z_]+)/[\w./-]+\.(?:py|md))`", path.read_text()):
            if "NAME" in name or "crest" in name or "NNN" in name:
                continue
            assert (ROOT / name).exists() or (package / name).exists(), f"{path.name} names {name}"


def test_the_scorer_in_the_guide_works() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extend.md").read_text(), re.S)
    namespace: dict[str, Any] = {"__name__": "guide"}
    exec(compile(blocks[0], "extend.md", "exec"), namespace)
    crest = namespace["Crest"]().load()
    sine = np.sin(np.arange(16_000) * 2 * np.pi * 440 / 16_000).astype(np.float32)
    scores = scores_of(crest, [ScoreItem("a", sine, 16_000), ScoreItem("b", 0 * sine, 16_000)])
    assert scores[0].value == pytest.approx(3.0103, abs=1e-2)  # √2 in dB
    assert (scores[1].value, scores[1].reason) == (None, "silent")
