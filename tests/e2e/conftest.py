"""One browser for all of these tests; every test has its own raters and tabs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.e2e.chromium import Chromium, Tab, find_chromium
from tests.e2e.site import Site, make_workspace

Visit = Callable[..., Tab]
_names = count(1)


@pytest.fixture(scope="session")
def browser() -> Iterator[Chromium]:
    """A headless Chromium, or no test."""
    path = find_chromium()
    if path is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    chromium = Chromium(path)
    yield chromium
    chromium.close()


@pytest.fixture(scope="session")
def make_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Site]]:
    """make_site(num_clips, **settings) serves a new site until the tests end."""
    sites: list[Site] = []

    def site(num_clips: int = 8, **settings: object) -> Site:
        root: Path = tmp_path_factory.mktemp("site")
        sites.append(Site(make_workspace(root / "workspace", num_clips), **settings))
        return sites[-1]

    yield site
    for one in sites:
        one.close()


@pytest.fixture(scope="session")
def rating(make_site: Callable[..., Site]) -> Site:
    """A site with five soundtracks per clip to rate."""
    return make_site(task="rate")


@pytest.fixture
def rater() -> str:
    """A rater's name that no other test uses."""
    return f"rater{next(_names)}"


@pytest.fixture
def visit(browser: Chromium) -> Iterator[Visit]:
    """visit(url) opens a page as a new person who presses Begin; it may ask only its own server."""
    tabs: list[Tab] = []

    def opened(url: str, begin: bool = True, before: str = "", **size: int) -> Tab:
        tab = browser.open(before=before, **size)
        tabs.append(tab)
        tab.goto(url)
        if begin:
            start(tab)
        return tab

    yield opened
    for tab in tabs:
        tab.close()
    origin = "http://127.0.0.1:"
    elsewhere = [
        url for tab in tabs for url in tab.requests if not url.startswith((origin, "blob:" + origin))
    ]
    assert set(elsewhere) <= {"about:blank"}, "the page asks others than its own server"


def start(tab: Tab) -> None:
    """Press Begin and wait until the first clip plays."""
    tab.wait("!document.querySelector('#begin').hidden")
    tab.press(" ")
    playing(tab)
    tab.presses = 0


def playing(tab: Tab, number: int | None = None) -> None:
    """Wait until a clip plays; with `number`, until the task of that number plays."""
    is_number = "true" if number is None else f"s.number === {number}"
    tab.wait(f"(s => s.playing && !s.busy && {is_number})(foleypref.state())")


def heard(tab: Tab) -> str:
    """Wait until enough of the current soundtrack was heard; return its letter."""
    tab.wait("document.querySelector('.track.on.ready') !== null")
    return str(tab.js("foleypref.current()"))


def saved(tab: Tab) -> None:
    """Wait until the server has all events."""
    tab.wait("foleypref.state().network === 'idle' && foleypref.state().unsaved === 0")
