"""Serves a campaign over a real socket, and sends requests as any client may write them, however odd."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import uvicorn

from foleypref.annotate.app import create_app
from foleypref.annotate.campaign import Campaign
from foleypref.annotate.serve import _listen


class Answer(NamedTuple):
    """A response with its whole body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed as JSON."""
        return json.loads(self.body)


class Client(NamedTuple):
    """One person's way to the server; `token` None sends none."""

    port: int
    token: str | None = None

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Send a request without any change to its path."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = {"Authorization": f"Bearer {self.token}"} if self.token is not None else {}
        connection.request(method, path, body, {**sent, **(headers or {})})
        response = connection.getresponse()
        answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        connection.close()
        return answer

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, headers=headers)

    def post(self, path: str, content: Any, **headers: str) -> Answer:
        """Post JSON, or bytes as they are."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.request("POST", path, body, {"Content-Type": "application/json", **headers})

    def say(self, kind: str, **fields: Any) -> Answer:
        """Post an event of this kind."""
        event = {"kind": kind, "client_id": str(uuid4()), "client_time_ms": 1, **fields}
        return self.post("/api/events", event)


@contextmanager
def served(campaign: Campaign, static: Path | None = None) -> Iterator[int]:
    """Serve a campaign; yield the port."""
    with _listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        app = create_app(campaign, f"http://127.0.0.1:{port}", *([] if static is None else [static]))
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield port
        server.should_exit = True
        thread.join(10)
