"""Rating in a real browser, with only the keyboard: keys, undo, skip, reload, other raters, hostile text."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.e2e.chromium import Tab, until
from tests.e2e.conftest import Visit, heard, playing, saved
from tests.e2e.site import HOSTILE, Site


def rate_clip(tab: Tab, keys: str) -> list[str]:
    """Press one key a soundtrack when it may be judged; returns letters in the order they were heard."""
    letters = []
    for key in keys:
        letters.append(heard(tab))
        tab.press(key)
    return letters


def test_one_key_a_soundtrack_rates_a_clip_and_opens_the_next(rating: Site, rater: str, visit: Visit) -> None:
    tab = visit(rating.rater(rater))
    assert rate_clip(tab, "bmgbg") == list("ABCDE")
    playing(tab, 2)
    assert tab.js("foleypref.current()") == "A"
    saved(tab)
    events = rating.events_of(rater)
    assert [(s["kind"], s["label"], s["value"]) for s in events] == [
        ("rate", label, value) for label, value in zip("ABCDE", (0, 1, 2, 0, 2))
    ]
    assert len({s["task_id"] for s in events}) == 1
    assert all(0.15 <= s["heard"][s["label"]] < 20 and s["seconds"] > 0.2 for s in events)
    assert tab.presses == 5
    tab.wait("document.querySelector('#count').textContent.startsWith('1 of')")
    assert tab.problems == []


def test_a_soundtrack_is_rated_only_after_it_was_heard(rating: Site, rater: str, visit: Visit) -> None:
    tab = visit(rating.rater(rater))
    heard(tab)
    tab.press("g")
    tab.press("g")  # B is not heard yet
    assert tab.text("#message").startswith("Listen to B first: 0.")
    assert tab.js("document.querySelector('[data-label=B]').classList.contains('nudge')")
    assert tab.js("document.querySelector('.verdict').getAttribute('aria-disabled')") == "true"
    assert tab.js("foleypref.state().given")["B"] is None
    assert heard(tab) == "B"
    tab.wait("document.querySelector('#message').textContent === ''")
    assert tab.js("document.querySelector('.verdict').getAttribute('aria-disabled')") == "false"
    tab.press("m")
    saved(tab)
    assert [s["value"] for s in rating.events_of(rater)] == [2, 1]


@pytest.mark.slow
def test_digits_and_arrows_switch_and_space_pauses(rating: Site, rater: str, visit: Visit) -> None:
    tab = visit(rating.rater(rater))
    tab.press("4")
    assert tab.js("foleypref.current()") == "D"
    tab.press("ArrowRight")
    tab.press("ArrowRight")
    assert tab.js("foleypref.current()") == "A"
    tab.press("9")  # there is no ninth
    assert tab.js("foleypref.current()") == "A"
    tab.press(" ")
    assert tab.js("foleypref.state().playing") is False
    at = tab.js("foleypref.audioTime()")
    time.sleep(0.2)
    assert tab.js("foleypref.audioTime()") == at
    tab.press(" ")
    playing(tab)


def test_undo_takes_the_last_rating_back(rating: Site, rater: str, visit: Visit) -> None:
    tab = visit(rating.rater(rater))
    rate_clip(tab, "bg")
    tab.press("u")
    tab.wait("foleypref.state().given.B === null && foleypref.current() === 'B' && !foleypref.state().busy")
    assert tab.js("foleypref.state().given")["A"] == 0
    assert heard(tab) == "B"  # what was heard before still counts
    tab.press("m")
    saved(tab)
    assert [s["kind"] for s in rating.events_of(rater)] == ["rate", "rate", "undo", "rate"]
    assert standing(rating, rater) == {"A": 0, "B": 1}


@pytest.mark.slow
def test_undo_goes_back_into_the_clip_before(rating: Site, rater: str, visit: Visit) -> None:
    tab = visit(rating.rater(rater))
    rate_clip(tab, "ggggb")
    playing(tab, 2)
    tab.press("u")
    playing(tab, 1)
    assert tab.js("foleypref.current()") == "E"
    assert tab.js("foleypref.state().given") == {"A": 2, "B": 2, "C": 2, "D": 2, "E": None}
    heard(tab)
    tab.press("g")
    playing(tab, 2)
    saved(tab)
    assert standing(rating, rater, clip=0) == dict.fromkeys("ABCDE", 2)


def test_skip_asks_why(rating: Site, rater: str, visit: Visit) -> None:
    tab = visit(rating.rater(rater))
    tab.press("s")
    tab.wait("document.querySelector('#skip-dialog').open")
    assert tab.js("foleypref.state().playing") is False
    tab.press("Escape")
    playing(tab, 1)
    tab.press("s")
    tab.press("2")
    playing(tab, 2)
    saved(tab)
    (event,) = rating.events_of(rater)
    assert (event["kind"], event["reason"], event["note"]) == ("skip", "cannot tell", "")
    tab.press("u")
    playing(tab, 1)


def test_reload_in_the_middle_of_a_clip_loses_nothing(rating: Site, rater: str, visit: Visit) -> None:
    tab = visit(rating.rater(rater))
    rate_clip(tab, "bg")
    heard(tab)  # C, not rated
    before = tab.js("foleypref.state().heard")
    tab.reload()
    tab.wait("!document.querySelector('#begin').hidden")
    assert "token" not in tab.js("location.href")
    tab.press(" ")
    playing(tab, 1)
    state = tab.js("foleypref.state()")
    assert state["given"] == {"A": 0, "B": 2, "C": None, "D": None, "E": None}
    assert tab.js("foleypref.current()") == "C"
    assert state["heard"]["C"] > before["C"] - 0.3
    tab.press("m")  # it was heard before the reload
    rate_clip(tab, "mm")
    playing(tab, 2)
    saved(tab)
    assert standing(rating, rater) == {"A": 0, "B": 2, "C": 1, "D": 1, "E": 1}


def test_two_raters_at_once_have_their_own_order_and_labels(rating: Site, rater: str, visit: Visit) -> None:
    other = rater + "b"
    ann, bob = visit(rating.rater(rater)), visit(rating.rater(other))
    for _ in "ABCDE":
        for tab, key in ((ann, "g"), (bob, "b")):
            heard(tab)
            tab.press(key)
    for tab in (ann, bob):
        playing(tab, 2)
        saved(tab)
    assert standing(rating, rater) == dict.fromkeys("ABCDE", 2)
    assert standing(rating, other) == dict.fromkeys("ABCDE", 0)
    orders = [
        [
            t.candidate_id
            for t in rating.campaign.histories.of(name).assigned[rating.settings.campaign_id][0].tracks
        ]
        for name in (rater, other)
    ]
    assert sorted(orders[0]) == sorted(orders[1])  # the same clip,
    assert orders[0] != orders[1]  # blind in another order


def test_a_caption_with_markup_is_shown_as_text(rating: Site, rater: str, visit: Visit) -> None:
    tab = visit(rating.rater(rater))
    assert HOSTILE in tab.js("document.querySelector('#prompt').textContent")
    assert tab.js("document.querySelectorAll('#prompt *').length") == 0
    assert tab.js("window.hit === undefined && document.scripts.length === 1")


@pytest.mark.slow
def test_nothing_on_the_page_tells_what_made_a_sound(rating: Site, rater: str, visit: Visit) -> None:
    tab = visit(rating.rater(rater))
    page = tab.js("document.documentElement.outerHTML") + " ".join(tab.requests)
    task = rating.campaign.histories.of(rater).assigned[rating.settings.campaign_id][0]
    for secret in ("world", task.clip_id, *task.genuine.values()):
        assert secret not in page


@pytest.mark.slow
def test_an_address_without_a_token_says_what_to_do(rating: Site, visit: Visit) -> None:
    tab = visit(rating.url, begin=False)
    tab.wait("document.querySelector('#notice-title').textContent.includes('your own address')")
    wrong = visit(rating.url + "/#token=nobody", begin=False)
    wrong.wait("document.querySelector('#notice-text').textContent.includes('ask the operator')")


@pytest.mark.slow
def test_the_end_says_so_and_can_be_undone(make_site: Any, rater: str, visit: Visit) -> None:
    site = make_site(1, num_tracks=2)
    tab = visit(site.rater(rater))
    rate_clip(tab, "gb")
    tab.wait("document.querySelector('#notice-title').textContent.startsWith('All done')")
    tab.press("u")
    playing(tab, 1)
    assert tab.js("foleypref.current()") == "B"


@pytest.mark.slow
def test_a_telephone_shows_everything_without_scrolling_sideways(
    rating: Site, rater: str, visit: Visit
) -> None:
    tab = visit(rating.rater(rater), width=390, height=780)
    assert tab.js("document.documentElement.scrollWidth") <= 390
    box = tab.js("document.querySelector('.verdicts').getBoundingClientRect().toJSON()")
    assert box["bottom"] <= 780
    heard(tab)
    tab.js("document.querySelectorAll('.verdict')[2].click()")
    saved(tab)
    assert standing(rating, rater) == {"A": 2}


@pytest.mark.slow
def test_a_clip_of_five_soundtracks_takes_five_presses_and_little_more_than_listening(
    make_site: Any, rater: str, visit: Visit
) -> None:
    listen_s, num_clips = 2.0, 3
    site = make_site(num_clips, require_listen_s=listen_s)
    tab = visit(site.rater(rater))
    for number in range(1, num_clips + 1):
        begin, tab.presses = time.monotonic(), 0
        rate_clip(tab, "bmgmg")
        if number < num_clips:
            playing(tab, number + 1)
        seconds = time.monotonic() - begin
        print(
            f"\nclip {number}: {tab.presses} presses, {seconds:.1f} s with {5 * listen_s:.0f} s listening",
            end="",
        )
        assert tab.presses == 5
        assert seconds < 5 * listen_s + 5
    saved(tab)
    assert len(site.events_of(rater)) == 5 * num_clips


@pytest.mark.slow
def test_the_focus_is_seen_and_walks_the_page(rating: Site, rater: str, visit: Visit) -> None:
    tab = visit(rating.rater(rater))
    tab.press("Tab")
    until(lambda: tab.js("document.activeElement.tagName") == "BUTTON")
    assert tab.js("getComputedStyle(document.activeElement).outlineStyle") != "none"


def standing(site: Site, rater: str, clip: int = 0) -> dict[str, int]:
    """Return the ratings of a rater's clip by letter, from the server."""
    task = site.campaign.histories.of(rater).assigned[site.settings.campaign_id][clip]
    return {
        a: e.body["value"] for a, e in sorted(site.campaign.histories.of(rater).state(task).given.items())
    }
