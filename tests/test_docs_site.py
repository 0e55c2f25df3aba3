"""The documentation site: pages hang together, the tutorial's code works, docstrings come out as written."""

from __future__ import annotations

import ast
import importlib
import io
import json
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

import foleypref
from foleypref.cli import main as cli
from foleypref.fit import FitSettings
from foleypref.scoring.crossval import Training
from foleypref.scoring.scorers import ScoreItem
from foleypref.settings.parts import DRAWERS, build
from foleypref.workspace.records import Candidate, Pair, Score
from foleypref.workspace.store import Workspace
from tests.contracts import test_scorers as contract
from tests.judged import scores_of
from tests.world_workspace import NUM_CLIPS, world_workspace

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md"))
TUTORIAL = DOCS / "tutorials" / "add-a-scorer.md"
JUDGE = "my_judges:Dynamics"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """`docs/_site.py`, which `docs/conf.py` hands to Sphinx."""
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(DOCS)
    yield importlib.import_module("_site")
    for name in ("_site", "_source"):
        sys.modules.pop(name, None)


@pytest.fixture
def source(site: ModuleType) -> ModuleType:
    return sys.modules["_source"]


# pages


def in_toctrees() -> list[str]:
    """Every page that a toctree names, without suffix."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.S):
            for entry in (line for line in block.splitlines() if line and not line.startswith(":")):
                paths = sorted(page.parent.glob(f"{entry}.md"))
                assert paths, f"{page.name}: its toctree names {entry}, which is not there"
                found += [path.relative_to(DOCS).with_suffix("").as_posix() for path in paths]
    return found


def test_every_page_is_in_one_toctree() -> None:
    there = [path.relative_to(DOCS).with_suffix("").as_posix() for path in PAGES]
    missing = sorted(set(there) - set(in_toctrees()) - {"index"})
    assert missing == [], "name these in a toctree of docs/index.md"
    assert sorted(in_toctrees()) == sorted(set(in_toctrees()))


def test_every_drawer_has_a_page() -> None:
    for drawer in DRAWERS:
        assert f".. drawer:: {drawer}\n" in (DOCS / "api" / f"{drawer}.md").read_text()


def test_the_citation_is_of_this_version() -> None:
    said = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (said["version"], said["license"]) == (foleypref.__version__, "Apache-2.0")
    assert [r["url"].rpartition("/")[2] for r in said["references"]] == ["2603.11089", "2605.12179"]


def test_tutorials_are_read_in_one_sitting() -> None:
    tutorials = sorted((DOCS / "tutorials").glob("*.md"))
    assert len(tutorials) >= 4
    for path in tutorials:
        assert 80 <= len(path.read_text().splitlines()) <= 200, path.name


# the tutorial on scorers


@pytest.fixture
def tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """The page's commands, in a folder with the files that it says to write, where Python looks."""
    text = TUTORIAL.read_text()
    for name, code in re.findall(r"^`(\w+\.py)`:\n\n```python\n(.*?)```", text, re.S | re.M):
        (tmp_path / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield [shlex.split(line) for line in re.findall(r"^ {4}foleypref (.+)$", text, re.M)]
    sys.modules.pop("my_judges", None)


def test_the_tutorials_scorer_reaches_reward_and_pairs(
    tutorial: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command as printed but the first two, whose clips a fixture has made already."""
    (make, ingest), rest = tutorial[:2], tutorial[2:]
    assert (make[:2], ingest[:2]) == (["world", "make"], ["ingest", "runs/tiny"])
    assert f"--num-clips {NUM_CLIPS}" in " ".join(make)
    world_workspace(tmp_path / "made").root.rename((tmp_path / "runs").mkdir() or tmp_path / "runs" / "tiny")
    said = []
    for args in rest:
        assert cli.main(args) == 0, args
        said.append(capsys.readouterr())
    runs = [done for args, done in zip(rest, said) if args[0] == "score" and JUDGE in args]
    assert [re.search(r"score: (\d+ done, \d+ skipped)", done.err)[1] for done in runs] == [  # type: ignore[index]
        "18 done, 0 skipped",
        "0 done, 18 skipped",
    ]
    assert JUDGE in said[-1].out + said[-1].err  # the plan of its recipe

    workspace = Workspace(tmp_path / "runs" / "tiny")
    scores = [s for s in workspace.read(Score) if s.scorer == JUDGE]
    assert {s.candidate_id for s in scores} == workspace.ids(Candidate)
    assert len(scores) == 18
    assert all(0 < s.value < 90 for s in scores if s.value is not None)
    assert len({s.value for s in scores}) > 12
    report = json.loads((tmp_path / "runs/tiny/audioscore/audioscore.json").read_text())
    assert report["dimensions"][f"{JUDGE}/range_db"] == "1"
    assert set(report["contributions"]) == {f"{JUDGE}/range_db", "world_sync/desync_s"}
    assert workspace.read(Pair)
    runpy.run_path("look.py")
    assert len(capsys.readouterr().out.splitlines()) == 18


@pytest.mark.parametrize(
    "check",
    [
        contract.test_declares_itself,
        contract.test_one_score_an_item_and_dimension_with_its_name,
        contract.test_independent_of_order_and_batch_size,
        contract.test_silence_is_no_exception,
        contract.test_short_and_missing_inputs_are_no_exception,
        contract.test_true_sound_beats_noise,
    ],
    ids=lambda check: check.__name__,
)
def test_the_tutorials_scorer_keeps_the_contract(tutorial: list[list[str]], check) -> None:  # type: ignore[no-untyped-def]
    check((JUDGE, build("scorers", JUDGE).load()))


def test_the_tutorials_scorer_measures_what_it_says(tutorial: list[list[str]]) -> None:
    generator = np.random.default_rng(0)
    noise = 0.1 * generator.standard_normal(32_000).astype(np.float32)
    halves = noise * np.repeat([1.0, 0.1], 16_000).astype(np.float32)  # 20 dB apart
    items = [ScoreItem("steady", noise, 16_000), ScoreItem("halves", halves, 16_000)]
    steady, apart = scores_of(build("scorers", JUDGE).load(), items)
    assert steady.value == pytest.approx(0.0, abs=1.5)
    assert apart.value == pytest.approx(20.0, abs=1.5)


# docstrings, signatures, settings


def rendered(source: ModuleType, text: str) -> tuple[str, str]:
    """A docstring as the site shows it (docutils' pseudo-XML), and what docutils complained of."""
    from docutils.core import publish_doctree

    complaints = io.StringIO()
    settings = {"warning_stream": complaints, "report_level": 1, "halt_level": 5}
    tree = publish_doctree("\n".join(source.prose(text.split("\n"))), settings_overrides=settings)
    return tree.pformat(), complaints.getvalue()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Takes `x` alone.", ["<literal>\n            x"]),
        ("Is non`x`y.", ["<literal>\n            x"]),
        (
            "Speed `f`^severity of `a`s.",
            ["<literal>\n            f", "^severity", "<literal>\n            a"],
        ),
        ("Names: simulated-* and x0_ and |v|.", ["simulated-* and x0_ and |v|."]),
        (
            "The loss:\n\n    e = mean((v − u)²)  *\n      next\n\nAfter.",
            ["<literal_block", "  next", "After."],
        ),
        ("By kind:\n    one   two\nAfter.", ["<literal_block", "one   two", "<paragraph>\n        After."]),
        ("Both:\n- first\n  goes on\n- second", ["<bullet_list", "first\n", "second"]),
        ("A path C:\\x and `a\nb`.", ["C:\\x", "<literal>"]),
    ],
)
def test_a_docstring_is_prose_with_code_in_backticks(
    source: ModuleType, text: str, wanted: list[str]
) -> None:
    tree, complaints = rendered(source, text)
    assert complaints == ""
    for piece in wanted:
        assert piece in tree, tree
    assert "emphasis" not in tree
    assert "problematic" not in tree


def test_no_docstring_of_the_reference_is_taken_for_markup(site: ModuleType, source: ModuleType) -> None:
    defined = (ast.Module, ast.ClassDef, ast.FunctionDef)
    texts = {
        doc: module
        for module in sorted(site.documented())
        for node in ast.walk(source.tree(module))
        if isinstance(node, defined) and (doc := ast.get_docstring(node))
    }
    assert len(texts) > 500
    marked = [(doc, module) for doc, module in texts.items() if re.search(r"[`*|_\\]|\n +|\n- ", doc)]
    for doc, module in marked:
        assert rendered(source, doc)[1] == "", f"{module}: {doc}"


def test_settings_come_with_type_default_and_comment(source: ModuleType) -> None:
    rows = {name: (kind, default, meaning) for name, kind, default, meaning in source.fields(FitSettings)}
    assert set(rows) == set(FitSettings.model_fields)
    assert list(rows)[: len(Training.model_fields)] == list(Training.model_fields)  # the base's first
    assert rows["learning_rate"] == ("float, > 0", "0.01", "")
    assert rows["num_steps"] == ("int, ≥ 1", "400", "full-batch Adam steps")
    assert rows["raters"][2].startswith("name patterns such as")
    text = "\n".join(source.table(FitSettings))
    assert "``learning_rate``" in text
    assert source.table(object) == []


def test_part_fields_and_made_defaults_are_said_plainly(source: ModuleType) -> None:
    from foleypref.evaluate import EvaluateSettings
    from foleypref.sample import SampleSettings
    from foleypref.settings.parts import DRAWERS

    rows = {row[0]: row for row in source.fields(SampleSettings)}
    assert rows["model"][1] == "part of models"
    assert "ignore" not in rows["model"][3]
    rows = {row[0]: row for row in source.fields(EvaluateSettings)}
    assert rows["metrics"][1:3] == ("tuple[part of metrics, ...]", "world_metrics")
    assert set(source.part_types().values()) <= set(DRAWERS)


def test_signatures_keep_their_shapes_and_link_to_our_classes(source: ModuleType) -> None:
    from foleypref.flow.convention import interpolate
    from foleypref.pair import pair

    known = {"foleypref.workspace.store", "foleypref.pair"}
    assert source.signature(interpolate, bound=False, documented=known) == (
        "(x0: Latents, x1: Latents, t: Float[Tensor, ' B'])",
        "Latents",
    )
    assert source.signature(pair, bound=False, documented=known) == (
        "(workspace: ~foleypref.workspace.store.Workspace, settings: ~foleypref.pair.PairSettings)",
        "~foleypref.pair.PairReport",
    )
    arguments, back = source.signature(Workspace.read, bound=True, documented=())
    assert (arguments.startswith("(self"), back) == (False, "list[R]")
    assert source.signature(len, bound=False, documented=known) is None


# nothing from other machines


def test_what_a_page_loads_from_elsewhere_is_found(site: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="https://x.org/fine"></a><img src="pictures/a.png"><script src="_static/b.js"></script>'
        '<link rel="canonical" href="https://x.org/fine"><link rel="stylesheet" href="_static/c.css">'
        '<script src="https://x.org/1"></script><img src="//x.org/2"><link rel="icon" href="http://x.org/3">'
        '<img srcset="a.png 1x, https://x.org/4 2x"><video poster="https://x.org/5"></video>'
        '<p style="background: url(https://x.org/6)"></p>'
    )
    (tmp_path / "c.css").write_text(
        '@import "https://x.org/7"; p { background: url(https://x.org/8) } q { background: url(d.png) }'
    )
    found = site.loaded_from_abroad(tmp_path)
    assert [line.rpartition("/")[2] for line in found] == list("12345678")
    assert found[-1].startswith("c.css: ")


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path, site: ModuleType) -> None:
    """As `make docs` does."""
    command = [sys.executable, "-m", "sphinx", "-q", "-n", "-W", "--keep-going", "-b", "html"]
    done = subprocess.run([*command, str(DOCS), str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for page in PAGES:
        assert (tmp_path / page.relative_to(DOCS).with_suffix(".html")).exists(), page
    assert site.loaded_from_abroad(tmp_path) == []
    stages = (tmp_path / "api" / "stages.html").read_text()
    assert 'id="foleypref.fit.FitSettings"' in stages
    assert "full-batch Adam steps" in stages


@pytest.mark.slow
def test_the_plan_in_costs_is_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "costs.md").read_text()
    command, printed = re.search(r"^ {4}foleypref (.+)\n\n```\n(.*?)```", text, re.S | re.M).groups()  # type: ignore[union-attr]
    assert cli.main(shlex.split(command)) == 0
    said = capsys.readouterr()
    assert (said.err + said.out).replace(f"{tmp_path}/", "") == printed
