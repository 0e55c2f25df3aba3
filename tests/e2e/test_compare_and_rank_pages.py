"""Comparing and ranking in a real browser, with only the keyboard."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.chromium import Tab
from tests.e2e.conftest import Visit, heard, playing, saved
from tests.e2e.site import Site

OTHERS = [("ArrowDown", 0), ("ArrowRight", -1), ("t", 0), ("b", -1)]


@pytest.fixture(scope="module")
def comparing(make_site: Callable[..., Site]) -> Site:
    """A site with two soundtracks per clip."""
    return make_site(task="compare")


@pytest.fixture(scope="module")
def ranking(make_site: Callable[..., Site]) -> Site:
    """A site with four soundtracks per clip to rank."""
    return make_site(task="rank", num_tracks=4)


def hear_all(tab: Tab, digits: str) -> None:
    """Listen to each soundtrack for as long as is asked for."""
    for digit in digits:
        tab.press(digit)
        heard(tab)


def rows(tab: Tab) -> str:
    """Letters of the rows from top to bottom, a tie in brackets with the one above."""
    return str(
        tab.js(
            "[...document.querySelectorAll('.track')].map(row => "
            "row.classList.contains('tied') ? `=${row.dataset.label}` : row.dataset.label).join('')"
        )
    )


@pytest.mark.parametrize(
    ("key", "value"), [("ArrowLeft", 1), *(pytest.param(*row, marks=pytest.mark.slow) for row in OTHERS)]
)
def test_an_arrow_says_which_is_better(
    comparing: Site, rater: str, visit: Visit, key: str, value: int
) -> None:
    tab = visit(comparing.rater(rater))
    hear_all(tab, "12")
    tab.press(key)
    playing(tab, 2)
    saved(tab)
    (event,) = comparing.events_of(rater)
    assert (event["first"], event["second"], event["value"]) == ("A", "B", value)
    assert set(event["heard"]) == {"A", "B"}
    assert tab.problems == []


@pytest.mark.slow
def test_the_second_plays_by_itself_when_the_first_was_heard_to_its_end(
    comparing: Site, rater: str, visit: Visit
) -> None:
    tab = visit(comparing.rater(rater))
    heard(tab)
    tab.press("ArrowLeft")  # B was not heard: it is switched to instead
    assert tab.text("#message").startswith("Listen to B first")
    assert tab.js("foleypref.current()") == "B"
    tab.press("u")
    assert tab.text("#message").startswith("There is nothing to undo")
    other = visit(comparing.rater(rater + "b"))
    assert other.js("foleypref.current()") == "A"
    other.wait("foleypref.current() === 'B'")
    assert other.js("foleypref.state().heard.A") == pytest.approx(3.0, abs=0.3)
    assert other.presses == 0


@pytest.mark.slow
def test_a_comparison_is_undone(comparing: Site, rater: str, visit: Visit) -> None:
    tab = visit(comparing.rater(rater))
    hear_all(tab, "12")
    tab.press("ArrowLeft")
    playing(tab, 2)
    tab.press("u")
    playing(tab, 1)
    tab.press("ArrowRight")  # both were heard before
    playing(tab, 2)
    saved(tab)
    assert [s.get("value") for s in comparing.events_of(rater)] == [1, None, -1]


def test_rows_are_moved_tied_and_sent_from_best_to_worst(ranking: Site, rater: str, visit: Visit) -> None:
    tab = visit(ranking.rater(rater))
    hear_all(tab, "1234")  # D is on
    tab.press("ArrowUp")
    assert rows(tab) == "ABDC"
    tab.press("ArrowUp", shift=True)
    assert rows(tab) == "DABC"
    tab.press("1")
    tab.press("ArrowDown")
    assert rows(tab) == "DBAC"
    tab.press("t")
    assert rows(tab) == "DB=AC"
    tab.press("t")
    assert rows(tab) == "DBAC"
    tab.press("t")
    tab.press("2")
    tab.press("ArrowDown")  # out of the tie, below it
    assert rows(tab) == "DABC"
    tab.press("t")
    assert rows(tab) == "DA=BC"
    tab.press("Enter")
    playing(tab, 2)
    saved(tab)
    (event,) = ranking.events_of(rater)
    assert event["order"] == [["D"], ["A", "B"], ["C"]]
    assert rows(tab) == "ABCD"
    assert tab.problems == []


@pytest.mark.slow
def test_an_order_survives_a_reload_and_needs_everything_heard(
    ranking: Site, rater: str, visit: Visit
) -> None:
    tab = visit(ranking.rater(rater))
    hear_all(tab, "12")
    tab.press("ArrowUp")
    assert rows(tab) == "BACD"
    tab.press("Enter")
    assert tab.text("#message").startswith("Listen to C first")
    tab.reload()
    tab.wait("!document.querySelector('#begin').hidden")
    tab.press(" ")
    playing(tab, 1)
    assert rows(tab) == "BACD"
    assert tab.js("foleypref.current()") == "C"  # the first that is unheard
    hear_all(tab, "34")
    tab.js("document.querySelector('[data-label=D] .arrows button').click()")  # the mouse can do it too
    tab.press("Enter")
    playing(tab, 2)
    saved(tab)
    assert ranking.events_of(rater)[0]["order"] == [["B"], ["A"], ["D"], ["C"]]
