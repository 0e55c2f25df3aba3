"""A rating server over a real socket, with two raters, an operator and a stranger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from foleypref.annotate.campaign import Campaign
from foleypref.annotate.settings import OPERATOR
from tests.annotate_http import Client, served
from tests.annotate_workspace import HOSTILE, fill, make_campaign


class Site(NamedTuple):
    """A running server, and one client for each person."""

    campaign: Campaign
    ann: Client
    bob: Client
    operator: Client
    stranger: Client


def open_site(folder: Path) -> Iterator[Site]:
    """Serve a workspace with hostile captions, beside a file that no path may lead to."""
    workspace = fill(folder / "w", num_clips=4, prompt=HOSTILE)
    campaign = make_campaign(workspace, raters=())
    tokens = [campaign.tokens.new_token(name) for name in ("ann", "bob")]
    static = folder / "static"
    static.mkdir()
    (static / "index.html").write_text("<!doctype html><title>rate</title>")
    (static / "operator.html").write_text("<!doctype html><title>operator</title>")
    (static / "app.js").write_text("export const x = 1;\n")
    (folder / "secret.txt").write_text("secret")
    (static / "out.txt").symlink_to(folder / "secret.txt")
    operator = campaign.tokens.new_token(OPERATOR, OPERATOR)
    with served(campaign, static) as port:
        yield Site(campaign, *(Client(port, t) for t in (*tokens, operator)), Client(port))


def first_task(client: Client) -> dict[str, Any]:
    """Return the rater's current task."""
    return client.get("/api/tasks/next").json["tasks"][0]
