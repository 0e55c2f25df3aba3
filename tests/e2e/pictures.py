"""Take the pictures in docs/pictures, of the rating tool or of a report:

    python -m tests.e2e.pictures docs/pictures
    python -m tests.e2e.pictures docs/pictures runs/demo/report/index.html

The rating tool's clips are the world's; their soundtracks are variations of the clips' sound.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
from PIL import Image

from foleypref.annotate.degrade import degrade
from foleypref.media.clip import read_wave
from foleypref.workspace.records import Candidate, Clip
from foleypref.workspace.store import Workspace
from tests.e2e.chromium import Chromium, Tab, find_chromium
from tests.e2e.conftest import playing, start
from tests.e2e.site import Site, add_candidates, make_workspace
from tests.e2e.test_operator_page import judge
from tests.world_workspace import world_workspace

SAMPLE_RATE = 24_000
HOW = ("", "noise", "late", "low_pass")


def varied(workspace: Workspace) -> Callable[[Sequence[str]], Mapping[str, tuple[np.ndarray, int]]]:
    """A clip's own sound, worse in another way for each candidate, and another clip's for the last."""
    clips, candidates = workspace.read(Clip), workspace.by_id(Candidate)

    def waves(candidate_ids: Sequence[str]) -> dict[str, tuple[np.ndarray, int]]:
        by_id = {}
        for candidate_id in candidate_ids:
            candidate = candidates[candidate_id]
            place = [clip.clip_id for clip in clips].index(candidate.clip_id)
            clip = clips[(place + (candidate.seed >= len(HOW))) % len(clips)]
            wave, _ = read_wave(workspace.clip_file(clip), SAMPLE_RATE, start_s=clip.start_s, duration_s=4.0)
            how = HOW[candidate.seed % len(HOW)]
            by_id[candidate_id] = (degrade(wave, SAMPLE_RATE, how, 0) if how else wave, SAMPLE_RATE)
        return by_id

    return waves


class Album:
    """Takes screenshots into one folder."""

    def __init__(self, folder: Path, browser: Chromium, subject: str = "annotate") -> None:
        self.folder, self.browser, self.subject = folder, browser, subject

    def keep(self, tab: Tab, name: str) -> None:
        """Save a screenshot of a tab."""
        path = tab.screenshot(self.folder / f"{self.subject}-{name}.png")
        Image.open(path).convert("RGB").save(path, optimize=True)
        print(f"{path}: {path.stat().st_size // 1024} KB")

    def both(self, tab: Tab, name: str) -> None:
        """Save screenshots of the light and the dark page."""
        for dark in (False, True):
            tab.dark(dark)
            time.sleep(0.3)
            self.keep(tab, f"{name}-dark" if dark else name)
        tab.dark(False)

    def visit(self, url: str, **size: int) -> Tab:
        """Open a page as a new rater who has pressed Begin."""
        tab = self.browser.open(**size)
        tab.goto(url)
        start(tab)
        return tab


def show_rating(album: Album, site: Site) -> None:
    tab = album.visit(site.rater("cleo"))
    for key in "bgmmbgmbmggbm":
        tab.wait("document.querySelector('.track.on.ready') !== null")
        tab.press(key)
    time.sleep(1.2)
    album.both(tab, "rate")
    tab.press("?")
    album.keep(tab, "keys")
    tab.press("Escape")
    small = album.visit(site.rater("dora"), width=390, height=780)
    time.sleep(1.2)
    album.keep(small, "phone")
    for one in (tab, small):
        one.close()


def show_comparing(album: Album, site: Site) -> None:
    tab = album.visit(site.rater("cleo"))
    time.sleep(1.5)
    tab.press("2")
    time.sleep(2.2)
    album.both(tab, "compare")
    tab.close()


def show_ranking(album: Album, site: Site) -> None:
    tab = album.visit(site.rater("cleo"))
    for digit in "12345":
        tab.press(digit)
        tab.wait("document.querySelector('.track.on.ready') !== null")
    for key, shift in (("ArrowUp", True), ("3", False), ("ArrowUp", False), ("4", False), ("t", False)):
        tab.press(key, shift)
    playing(tab)
    album.both(tab, "rank")
    tab.close()


def show_operator(album: Album, site: Site) -> None:
    clock = count(int(1000 * (time.time() - 900)), 3900)  # an answer every 3.9 s, the last one a while ago
    careless = {"ann": 0.08, "bob": 0.15, "eva": 0.6}
    with mock.patch("foleypref.annotate.event_log._now_ms", side_effect=clock):
        for place, (name, share) in enumerate(careless.items()):
            site.rater(name)
            judge(site, name, share, 12 - 2 * place)
    tab = album.browser.open(height=860)
    tab.goto(site.operator())
    tab.wait("!document.querySelector('#page').hidden")
    tab.js("document.querySelector('#name').value = 'finn'; document.querySelector('#add button').click()")
    tab.wait("document.querySelector('#address-url').value !== ''")
    time.sleep(0.5)
    album.both(tab, "operator")
    tab.close()


def show_report(folder: Path, page: Path) -> None:
    """Take pictures of the results, and of a clip that plays its second soundtrack."""
    path = find_chromium()
    assert path, "Chromium is not installed"
    browser = Chromium(path)
    album, tab = Album(folder, browser, "report"), browser.open(height=880)
    tab.goto(page.resolve().as_uri())
    tab.wait("document.querySelectorAll('.clip').length > 0")
    time.sleep(0.5)
    album.keep(tab, "results")
    tab.press("n")
    tab.press(" ")
    tab.wait("document.querySelector('.clip.active .play').textContent === 'Pause'")
    time.sleep(2.0)
    tab.press("2")
    time.sleep(0.5)
    album.both(tab, "gallery")
    browser.close()


def main(folder: Path) -> None:
    """Take all pictures of the rating tool."""
    path = find_chromium()
    assert path, "Chromium is not installed"
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        browser = Chromium(path)
        album = Album(folder, browser)
        shows = {"rate": show_rating, "compare": show_comparing, "rank": show_ranking}
        for task, show in shows.items():
            workspace = world_workspace(Path(scratch) / task)
            add_candidates(workspace, 5)
            site = Site(workspace, varied(workspace), task=task, require_listen_s=1.0, seed=4)
            show(album, site)
            site.close()
        checked = {"repeats": 0.3, "degraded": 0.4, "public_url": "https://listen.example.org"}
        site = Site(make_workspace(Path(scratch) / "operator", 16), **checked)
        show_operator(album, site)
        site.close()
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        show_report(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        main(Path(sys.argv[1]))
