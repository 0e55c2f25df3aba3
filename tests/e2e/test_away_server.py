"""The server stops while a rater works: nothing is lost, nothing counts twice, and the page shows it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from foleypref.annotate.event_log import EventLog
from tests.e2e.chromium import until
from tests.e2e.conftest import Visit, heard, playing, saved
from tests.e2e.site import Site

OFFLINE = "document.querySelector('#network').textContent"


@pytest.fixture
def own(make_site: Callable[..., Site]) -> Site:
    """A site that no other test uses."""
    return make_site(3)


@pytest.mark.slow
def test_answers_wait_while_the_server_is_away(own: Site, rater: str, visit: Visit) -> None:
    tab = visit(own.rater(rater))
    heard(tab)
    own.stop()
    for key in "bmgbm":  # to the end of the clip, and one of the next, which was fetched before
        heard(tab)
        tab.press(key)
    playing(tab, 2)
    heard(tab)
    tab.press("g")
    tab.wait(f"{OFFLINE} === 'Offline: 6 not sent yet, will retry'")
    assert tab.js("document.querySelector('#network').dataset.state") == "away"
    own.start()
    saved(tab)
    assert tab.text("#network") == "Saved"
    assert [s["value"] for s in own.events_of(rater)] == [0, 1, 2, 0, 1, 2]
    tab.wait("foleypref.state().done === 1")


def test_a_lost_acknowledgement_counts_once(own: Site, rater: str, visit: Visit) -> None:
    tab = visit(own.rater(rater))
    heard(tab)
    own.lose_replies = 2
    tab.press("g")
    heard(tab)
    tab.press("b")
    saved(tab)
    assert own.lose_replies == 0
    assert [(s["label"], s["value"]) for s in own.events_of(rater)] == [("A", 2), ("B", 0)]


@pytest.mark.slow
def test_what_waits_survives_leaving_the_page(own: Site, rater: str, visit: Visit) -> None:
    tab = visit(own.rater(rater))
    heard(tab)
    own.stop()
    tab.press("g")
    heard(tab)
    tab.press("m")
    tab.wait("foleypref.state().network === 'away'")
    tab.send("Page.navigate", url="about:blank")
    own.start()
    assert own.events_of(rater) == []
    tab.send("Page.navigate", url=own.url)  # the token is this tab's
    tab.wait("!document.querySelector('#begin').hidden")
    tab.press(" ")
    playing(tab, 1)
    assert tab.js("foleypref.state().given") == {"A": 2, "B": 1, "C": None, "D": None, "E": None}
    assert [s["value"] for s in own.events_of(rater)] == [2, 1]


@pytest.mark.slow
def test_a_refusal_is_said_and_taken_back(own: Site, rater: str, visit: Visit) -> None:
    tab = visit(own.rater(rater))
    heard(tab)
    own.campaign.settings = own.campaign.settings.model_copy(update={"require_listen_s": 2.5})
    tab.press("g")
    tab.wait("document.querySelector('#message').textContent === 'listen to A first'")
    playing(tab, 1)
    assert tab.js("foleypref.state().given")["A"] is None
    assert tab.js("foleypref.state().unsaved") == 0
    assert own.events_of(rater) == []


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[[], tuple[subprocess.Popen[str], str]]]:
    """process() starts a server process, always on one port, and returns it with ann's address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = f"--port {port} --raters ann --overlap 1 --repeats 0 --degraded 0 --require-listen-s 0.3".split()
    command = [sys.executable, "-m", "tests.e2e.site", str(tmp_path / "workspace"), *flags]
    running: list[subprocess.Popen[str]] = []
    output = tmp_path / "said.txt"

    def start() -> tuple[subprocess.Popen[str], str]:
        with output.open("a") as file:
            running.append(subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL, text=True))
        address = until(lambda: re.search(r"^ann +(\S+)$", output.read_text(), re.MULTILINE), 90)
        until(lambda: is_open(port), 90)
        return running[-1], address[1]

    yield start
    for one in running:
        one.kill()
        one.wait(10)


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return False
    return True


@pytest.mark.slow
def test_kill_9_while_rating(process: Callable[..., Any], visit: Visit, tmp_path: Path) -> None:
    server, address = process()
    tab = visit(address)
    sent = []
    for clip, keys in enumerate(("bmgbg", "ggbbm", "mmmgb"), start=1):
        playing(tab, clip)
        for i, key in enumerate(keys):
            sent.append((clip, heard(tab), "bmg".index(key)))
            if i == 2:
                os.kill(server.pid, signal.SIGKILL)
                server.wait()
            tab.press(key)
            if i == 4:
                tab.wait("foleypref.state().network === 'away'")
        server, _ = process()
        saved(tab)
    log = EventLog.of(tmp_path / "workspace")
    number = {task.task_id: task.number for task in log.tasks("ann")}
    stored = [
        (number[e.task_id], e.body["label"], e.body["value"]) for e in log.events("ann") if e.kind == "rate"
    ]
    log.close()
    assert stored == sent  # every one, once, in order
