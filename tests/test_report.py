"""The report opens from disk: whole, escaped, without a network, and rebuilt to the same bytes."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foleypref.evaluate import EvaluateSettings, evaluate
from foleypref.evaluation.charts import (
    Interval,
    Series,
    bar_chart,
    histogram_chart,
    interval_chart,
    line_chart,
)
from foleypref.evaluation.gallery import changes, choose
from foleypref.evaluation.sections import audioscore_sections, pairs_section, run_section
from foleypref.media.clip import read_wave
from foleypref.report import ReportSettings, report
from foleypref.workspace.paths import WorkspacePaths
from foleypref.workspace.records import GROUND_TRUTH, Candidate, Clip
from foleypref.workspace.store import Workspace
from tests.evaluated_workspace import REWARD, SAMPLE_RATE, SYSTEMS, fake_waves, fill

SECTIONS = ("results", "charts", "scores", "gallery", "audioscore", "pairs", "training", "settings")
SETTINGS = EvaluateSettings(systems=SYSTEMS, reward_dimensions=REWARD, num_resamples=20)


class Page(HTMLParser):
    """A page as a browser parses it: ids, script elements, and everything that points at a resource."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.scripts: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids += [values["id"]] if values.get("id") else []  # type: ignore[list-item]
        for name in ("src", "href", "data-src", "poster"):
            if values.get(name):
                self.links.append(values[name] or "")
        if tag == "script":
            self.scripts.append(values)
        assert not any(name.startswith("on") for name in values), f"an inline handler on <{tag}>"


def gallery_of(text: str) -> dict[str, Any]:
    """Return the gallery that the page's script reads."""
    match = re.search(r'<script type="application/json" id="gallery-data">(.*?)</script>', text, re.DOTALL)
    assert match is not None
    return json.loads(match[1])  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Path, str]:
    workspace = Workspace(tmp_path_factory.mktemp("report") / "workspace")
    fill(workspace, num_clips=12)
    evaluate(workspace, SETTINGS)
    index = report(workspace, ReportSettings(num_clips=5), fake_waves(workspace))
    return workspace, index, index.read_text()


def test_every_section_is_there(built: tuple[Workspace, Path, str]) -> None:
    page = Page(built[2])
    assert set(SECTIONS) <= set(page.ids)
    for words in (
        "Oracles",
        "Judges",
        "ground truth",
        "semantic ↑*",
        "IS ↑†",
        "1 clips left out",
        "beta: 600",
    ):
        assert words in built[2]
    gallery = gallery_of(built[2])
    assert len(gallery["clips"]) == 5
    for clip in gallery["clips"]:
        assert {sound["system"] for sound in clip["sounds"]} <= set(range(len(gallery["systems"])))
        assert all(len(sound["scores"]) == len(gallery["columns"]) > 0 for sound in clip["sounds"])


def test_captions_and_settings_are_escaped(built: tuple[Workspace, Path, str]) -> None:
    text = built[2]
    assert "<script>alert" not in text
    assert any("<script>alert(" in clip["prompt"] for clip in gallery_of(text)["clips"])
    assert "<b>not bold</b>" not in text
    assert "&lt;b&gt;not bold" in text
    assert [s.get("type") for s in Page(text).scripts if s.get("type") in (None, "module")] == ["module"]


def test_nothing_comes_from_a_network(built: tuple[Workspace, Path, str]) -> None:
    assert not re.search(r"https?:|//cdn|@import|url\(|\bfetch\(|XMLHttpRequest", built[2])


def test_all_media_exist(built: tuple[Workspace, Path, str]) -> None:
    _, index, text = built
    assert all(link.startswith("#") for link in Page(text).links)
    clips = gallery_of(text)["clips"]
    sounds = [sound["id"] for clip in clips for sound in clip["sounds"]]
    assert len(clips) == 5
    assert len(sounds) == 5 * 3
    names = [f"{clip['id']}.mp4" for clip in clips]
    names += [f"{i}.{ending}" for i in sounds for ending in ("flac.js", "webp")]
    for name in names:
        assert (index.parent / "media" / name).stat().st_size > 0, name
    assert not list(index.parent.glob("media/.*"))


def test_a_soundtrack_script_holds_the_sound(built: tuple[Workspace, Path, str], tmp_path: Path) -> None:
    script = next(built[1].parent.glob("media/*.flac.js"))
    match = re.fullmatch(r'foleyprefSound\("(\w+)","([\w+/=]+)"\)\n', script.read_text())
    assert match is not None
    (tmp_path / "sound.flac").write_bytes(base64.b64decode(match[2]))
    wave, rate = read_wave(tmp_path / "sound.flac")
    expected, _ = fake_waves(built[0])([match[1]])[match[1]]
    assert rate == SAMPLE_RATE
    np.testing.assert_allclose(wave, np.clip(expected, -1, 1), atol=1e-4)


def test_rebuilding_changes_nothing_and_decodes_nothing(built: tuple[Workspace, Path, str]) -> None:
    workspace, index, text = built
    before = {path: path.stat().st_mtime_ns for path in index.parent.glob("media/*")}

    def refuse(candidate_ids: Sequence[str]) -> dict[str, Any]:
        raise AssertionError(f"decoded again: {candidate_ids}")

    assert report(workspace, ReportSettings(num_clips=5), refuse).read_text() == text
    assert {path: path.stat().st_mtime_ns for path in index.parent.glob("media/*")} == before


def test_single_file_stands_alone(built: tuple[Workspace, Path, str], tmp_path: Path) -> None:
    settings = ReportSettings(num_clips=2, single_file=True, out=tmp_path / "one", audio_format="mp3")
    text = report(built[0], settings, fake_waves(built[0])).read_text()
    clips = gallery_of(text)["clips"]
    links = [clip["video"] for clip in clips] + [s["picture"] for clip in clips for s in clip["sounds"]]
    assert len(links) == 2 + 6
    assert all(re.match(r"data:(video/mp4|image/webp);base64,[\w+/=]{100,}$", link) for link in links)
    assert len([s for s in Page(text).scripts if s.get("type") == "text/plain"]) == 6


def test_sounds_that_cannot_be_made_leave_their_row_out(
    built: tuple[Workspace, Path, str], tmp_path: Path
) -> None:
    text = report(built[0], ReportSettings(num_clips=2, out=tmp_path / "silent"), lambda ids: {}).read_text()
    assert [clip["sounds"] for clip in gallery_of(text)["clips"]] == [[], []]


def test_a_bare_evaluation_is_enough(workspace: Workspace) -> None:
    fill(workspace, num_clips=12)
    evaluate(workspace, SETTINGS)
    (workspace.root / "pairs.json").write_text('["another version"]')
    (workspace.root / "audioscore" / "audioscore.json").write_text('{"reliability": 3, "contributions": [1]}')
    (workspace.root / "runs" / "tuned-0" / "metrics.jsonl").write_text("not json\n")
    text = report(workspace, ReportSettings(num_clips=0)).read_text()
    assert 'id="results"' in text
    assert 'id="gallery"' not in text
    assert 'id="training"' not in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"evaluation": "none"}, "there are: evaluation"),
        ({"guidance_scale": 2.0}, "4.5"),
        ({"compare": "x"}, "tuned"),
    ],
)
def test_errors_say_what_to_do(
    built: tuple[Workspace, Path, str], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        report(built[0], ReportSettings(**changes), fake_waves(built[0]))


def test_changes_are_signed_and_in_spreads() -> None:
    base = np.array([[1.0, 5.0], [3.0, np.nan]])
    tuned = np.array([[3.0, 4.0], [1.0, 4.0]])
    change = changes(base, tuned, [True, False])
    assert change[0] == pytest.approx((2.0 / 1.0 + 1.0 / np.std([5, 4, 4])) / 2)
    assert change[1] == pytest.approx(-2.0)
    assert np.isnan(changes(np.full((1, 1), np.nan), np.zeros((1, 1)), [True])).all()


def test_choice_holds_best_worst_and_every_class() -> None:
    clips = [
        Clip(f"{i:02d}", "x.mp4", "test", "", 0, 1, 12, 8, 8, True, {"label": "rare" if i == 7 else "common"})
        for i in range(20)
    ]
    shown = choose(clips, np.linspace(-1, 1, 20), 9)
    by_reason = {r: [s.clip.clip_id for s in shown if s.reason == r] for r in ("improved", "worse", "random")}
    assert by_reason["improved"] == ["19", "18", "17"]
    assert by_reason["worse"] == ["00", "01", "02"]
    assert "07" in by_reason["random"]
    assert len({s.clip.clip_id for s in shown}) == 9
    assert len(choose(clips[:4], np.full(4, np.nan), 9)) == 4


def test_charts_survive_odd_numbers() -> None:
    nan, one = np.array([np.nan]), np.array([2.0])
    assert "no data" in histogram_chart("empty", [Series("a", "red", nan)])
    assert "no data" in line_chart("empty", [Series("a", "red", nan, nan)])
    assert "no data" in interval_chart("empty", [Interval("a", "red", np.nan, np.nan, np.nan)])
    for chart in (
        histogram_chart("<same>", [Series("a<b", "red", np.array([3.0, 3.0]))]),
        line_chart("<point>", [Series("a<b", "red", one, one)]),
        interval_chart(
            "<one>", [Interval("a<b", "red", 1.0, 1.0, 1.0), Interval("b", "red", 2, np.nan, np.nan)]
        ),
        bar_chart("<bars>", ["a<b", "c"], [0.0, -1.0]),
    ):
        assert "nan" not in chart
        assert "<b" not in chart.replace("<bars>", "")
        assert "&lt;" in chart


def test_optional_sections_are_none_without_their_files(tmp_path: Path) -> None:
    paths = WorkspacePaths(tmp_path)
    assert audioscore_sections(paths) == []
    assert pairs_section(paths, np.zeros(0)) is None
    assert run_section(paths, None) is None
    section = pairs_section(paths, np.array([0.1, 0.9]))
    assert section is not None
    assert "polygon" in section.chart


def test_a_joint_models_candidates_show_their_own_pictures(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    fill(workspace, num_clips=4)
    evaluate(workspace, SETTINGS)
    drawn: list[str] = []

    def pictures(candidate_ids: Sequence[str]) -> dict[str, tuple[np.ndarray, float]]:
        tuned = [i for i in candidate_ids if workspace.by_id(Candidate)[i].model != GROUND_TRUTH]
        drawn.extend(tuned)
        return {i: (np.full((5, 48, 48, 3), 40, np.uint8), 25.0) for i in tuned}

    index = report(workspace, ReportSettings(num_clips=2), fake_waves(workspace), pictures)
    sounds = [sound for clip in gallery_of(index.read_text())["clips"] for sound in clip["sounds"]]
    assert drawn
    assert {sound["id"] for sound in sounds if sound.get("own")} == set(drawn)
    assert len(list((index.parent / "media").glob("*.mp4"))) == len(drawn) + 2  # and the clips' own
    assert all((index.parent / "media" / f"{i}.mp4").exists() for i in drawn)
    before = len(drawn)
    report(workspace, ReportSettings(num_clips=2), fake_waves(workspace), pictures)
    assert len(drawn) == before  # existing pictures are not drawn again
