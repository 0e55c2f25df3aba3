"""The operator's page in a real browser."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from foleypref.annotate.events import parse_event
from tests.e2e.chromium import Chromium, until
from tests.e2e.conftest import Visit, playing, start
from tests.e2e.site import Site


def judge(site: Site, rater: str, careless: float, num_clips: int = 2) -> None:
    """Rate clips without a browser as their makers would, but in a share of answers at random."""
    draws = random.Random(rater)
    for _ in range(num_clips):
        (task,) = site.campaign.next_tasks(rater)
        for track in site.campaign.task_of(rater, task["task_id"]).tracks:
            truth = 0 if track.degraded else int(track.candidate_id[:8], 16) % 3
            content = {
                "kind": "rate", "task_id": task["task_id"], "label": track.label,
                "value": draws.randrange(3) if draws.random() < careless else truth,
                "seconds": round(draws.uniform(2.4, 5), 2), "heard": {track.label: 3.0},
                "client_time_ms": 1, "client_id": str(uuid4()),
            }  # fmt: skip
            site.campaign.post(rater, parse_event(json.dumps(content).encode()))


def test_the_operator_sees_raters_adds_one_and_takes_the_labels(
    make_site: Callable[..., Site], browser: Chromium, visit: Visit, tmp_path: Path
) -> None:
    site = make_site(4)
    for name in ("ann", "bob"):
        site.rater(name)
        judge(site, name, careless=0)
    tab = visit(site.operator(), begin=False)
    tab.wait("!document.querySelector('#page').hidden")
    assert "token" not in tab.js("location.href")
    lines = tab.js("[...document.querySelectorAll('#raters tbody tr')].map(row => row.innerText)")
    assert [line.split()[0] for line in lines] == ["ann", "bob"]
    assert "2 of 4" in lines[0]
    tiles = tab.text("#tiles")
    assert "Krippendorff's alpha\n1.00" in tiles
    assert "Pairs ordered alike\n100 %" in tiles
    assert "10 items judged by two or more" in tiles

    tab.js("document.querySelector('#name').value = '<b>eve'; document.querySelector('#add button').click()")
    tab.wait("document.querySelector('#message').className === 'warning'")
    tab.js("document.querySelector('#name').value = 'eve'; document.querySelector('#add button').click()")
    address = tab.wait("document.querySelector('#address-url').value")
    assert address.startswith(site.url + "/#token=")
    tab.wait("document.querySelectorAll('#raters tbody tr').length === 3")
    eve = visit(address, begin=False)
    start(eve)
    playing(eve, 1)

    folder = {"behavior": "allow", "downloadPath": str(tmp_path), "browserContextId": tab.context}
    browser.send("Browser.setDownloadBehavior", **folder)
    tab.js("document.querySelector('[data-format=csv]').click()")
    until((tmp_path / "labels.csv").exists)
    assert len((tmp_path / "labels.csv").read_text().splitlines()) == 1 + 20
    assert tab.problems == [p for p in tab.problems if "422" in p]  # the name that was refused, no more


def test_a_rater_is_not_the_operator(rating: Site, rater: str, visit: Visit) -> None:
    token = rating.rater(rater).partition("#token=")[2]
    tab = visit(f"{rating.url}/operator#token={token}", begin=False)
    tab.wait("document.querySelector('#notice-text').textContent.includes('only the operator')")
    assert tab.js("document.querySelector('#page').hidden")
