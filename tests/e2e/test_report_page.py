"""The report opened from disk in a real browser: lazy, escaped, without a network, switchable while it plays.

Run the slow test with `-s` to read what thousands of clips cost.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from foleypref.evaluate import EvaluateSettings, evaluate
from foleypref.report import MODULES, ReportSettings, report, script
from foleypref.workspace.store import Workspace
from tests.e2e.chromium import Chromium, Tab
from tests.evaluated_workspace import HOSTILE, REWARD, SYSTEMS, fake_waves, fill

SETTINGS = EvaluateSettings(systems=SYSTEMS, reward_dimensions=REWARD, num_resamples=20)
STEP = 12  # clips the page makes at a time
CLIPS = "document.querySelectorAll('.clip').length"
LEVEL = """(() => {
  const connect = AudioNode.prototype.connect;
  window.gains = new Set();
  AudioNode.prototype.connect = function (to, ...rest) {
    if (this instanceof GainNode) gains.add(this);
    return connect.call(this, to, ...rest);
  };
})()"""


def built(folder: Path, num_clips: int, **settings: object) -> Path:
    workspace = Workspace(folder / "workspace")
    fill(workspace, num_clips=num_clips + 1)  # the last lacks a candidate
    evaluate(workspace, SETTINGS)
    return report(
        workspace,
        ReportSettings(num_clips=num_clips, **settings),  # type: ignore[arg-type]
        fake_waves(workspace),  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with 40 clips."""
    return built(tmp_path_factory.mktemp("report"), 40)


@pytest.fixture
def tab(browser: Chromium) -> Iterator[Tab]:
    """A person who looks at a file; nothing but files may be asked for."""
    page_tab = browser.open(before=LEVEL)
    yield page_tab
    page_tab.close()
    strange = [u for u in page_tab.requests if not u.startswith(("file://", "about:", "data:"))]
    assert strange == []


def test_its_modules_are_one_that_imports_nothing() -> None:
    """A page opened from disk may not import a file; the player is the one that the rating page imports."""
    text = script('import { f } from "./f.js";\nexport const x = f();\n', "export class Y {}\n")
    assert text == "const x = f();\n\nclass Y {}\n"
    text = script(*(path.read_text(encoding="utf-8") for path in MODULES))
    assert not re.search(r"^(import|export)\b", text, re.MULTILINE)
    assert text.count("class Player") == text.count("class Picture") == 1


def opened(tab: Tab, page: Path) -> None:
    tab.goto(page.as_uri())
    tab.wait(f"document.readyState === 'complete' && {CLIPS} > 0")


def to_the_end(tab: Tab) -> None:
    tab.js("document.querySelector('[data-list]').lastElementChild.scrollIntoView({behavior: 'instant'})")


def test_clips_come_as_the_page_is_scrolled(tab: Tab, page: Path) -> None:
    opened(tab, page)
    assert tab.js(CLIPS) == STEP
    assert tab.text("[data-count]") == "40 of 40 clips"
    for _ in range(4):
        to_the_end(tab)
        time.sleep(0.15)
    tab.wait(f"{CLIPS} === 40")
    assert tab.js("document.querySelector('[data-end]').hidden")
    assert tab.js("new Set([...document.querySelectorAll('.clip')].map(c => c.dataset.id)).size") == 40
    tab.wait("document.querySelectorAll('.clip video[src]').length > 0")
    assert tab.js("document.querySelectorAll('.clip video[src]').length") < STEP  # those near the screen
    assert tab.problems == []


def test_captions_are_text(tab: Tab, page: Path) -> None:
    opened(tab, page)
    prompts = tab.js("[...document.querySelectorAll('.prompt')].map(p => p.textContent)")
    assert HOSTILE in prompts
    assert tab.js("document.querySelectorAll('.clip script').length") == 0
    assert tab.dialogs == []


def test_filters_order_and_search(tab: Tab, page: Path) -> None:
    opened(tab, page)
    change = (
        "(s => ([e, v]) => { const f = document.querySelector(e); f.value = v; "
        "f.dispatchEvent(new Event(f.type === 'search' ? 'input' : 'change')); })()"
    )
    data = tab.js("JSON.parse(document.getElementById('gallery-data').textContent).clips")
    tab.js(f"{change}(['[data-filter=class]', 'bell'])")
    bells = [clip["id"] for clip in data if clip["class"] == "bell"]
    assert tab.text("[data-count]") == f"{len(bells)} of 40 clips"
    tab.js(f"{change}(['[data-order]', 'worst'])")
    worst = min(
        (c for c in data if c["class"] == "bell" and c["change"] is not None), key=lambda c: c["change"]
    )
    assert tab.js("document.querySelector('.clip').dataset.id") == worst["id"]
    tab.js(f"{change}(['[data-search]', {json.dumps(bells[0][:10])}])")
    assert tab.js(CLIPS) == 1
    tab.js(f"{change}(['[data-search]', 'no such words'])")
    assert tab.js(CLIPS) == 0
    assert tab.text("[data-count]") == "0 of 40 clips"


def test_soundtracks_play_and_switch_by_keys(tab: Tab, page: Path) -> None:
    opened(tab, page)
    tab.press("n")
    tab.press(" ")
    tab.wait("document.querySelector('.clip.active .play').textContent === 'Pause'")
    loud = "[...gains].filter(g => g.gain.value > 0.5).length"
    assert tab.js(f"gains.size === 3 && {loud} === 1")
    tab.press("2")
    tab.wait("[...gains].map(g => g.gain.value > 0.5).join() === 'false,true,false'")
    assert tab.js("document.querySelectorAll('.clip.active .pick')[1].getAttribute('aria-pressed')") == "true"
    tab.wait("document.querySelector('.clip.active video').currentTime > 0.1")
    tab.press("n")
    assert tab.js("document.querySelectorAll('.clip')[1].classList.contains('active')")
    assert tab.js("document.querySelector('.clip .play').textContent") == "Play"  # the one before was paused
    for _ in range(14):
        tab.press("n")
    assert tab.js("[...document.querySelectorAll('.clip')].findIndex(c => c.matches('.active'))") == 15
    assert tab.problems == []


def test_one_file_plays_alone(tab: Tab, tmp_path: Path) -> None:
    page = built(tmp_path, 6, single_file=True)
    alone = page.rename(tmp_path / "mailed.html")
    opened(tab, alone)
    tab.press("n")
    tab.press(" ")
    tab.wait("document.querySelector('.clip.active .play').textContent === 'Pause'")
    tab.wait("document.querySelector('.clip.active video').videoWidth > 0")
    tab.wait("document.querySelector('.clip img').naturalWidth > 0")
    assert [u for u in tab.requests if u.startswith("file://")] == [alone.as_uri()]
    assert tab.problems == []


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_thousands_of_clips_open_as_fast_as_a_few(tab: Tab, tmp_path: Path) -> None:
    start = time.perf_counter()
    page = built(tmp_path, 3000)
    made_s = time.perf_counter() - start
    start = time.perf_counter()
    opened(tab, page)
    open_s = time.perf_counter() - start
    assert tab.js(CLIPS) == STEP
    filter_ms = tab.js(
        "(() => { const f = document.querySelector('[data-search]'), t = performance.now(); "
        "f.value = 'bell'; f.dispatchEvent(new Event('input')); return performance.now() - t; })()"
    )
    assert tab.text("[data-count]").endswith(" of 3000 clips")
    for _ in range(60):
        to_the_end(tab)
        time.sleep(0.02)
    videos = tab.js("document.querySelectorAll('.clip video[src]').length")
    heap_mb = tab.js("performance.memory.usedJSHeapSize") / 2**20
    shown = tab.js(CLIPS)
    print(
        f"\nmade in {made_s:.0f} s; page {page.stat().st_size / 2**20:.2f} MiB, open in {open_s:.2f} s; "
        f"search in {filter_ms:.0f} ms; after scrolling to {shown} clips {videos} videos are loaded, "
        f"heap {heap_mb:.0f} MiB"
    )
    assert open_s < 3
    assert filter_ms < 200
    assert shown > 200
    assert videos < 2 * STEP
    assert heap_mb < 150
