"""Many raters at once against a real server that is killed now and then; what was acknowledged is counted.

Every rater is a page as it should be: it takes its tasks, posts one rating at a time, and sends the very same
post again until it is answered. Latencies are of answered requests; the time a killed server takes to come
back is counted apart.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np

from foleypref.annotate.assignments import make_assignments
from foleypref.annotate.event_log import EventLog
from foleypref.annotate.fold import fold
from foleypref.annotate.history import read_histories
from foleypref.annotate.media_store import MediaStore, prepare
from foleypref.annotate.settings import AnnotateSettings
from tests.annotate_workspace import all_heard, fake_waves, fill

ROOT = Path(__file__).parents[1]
ARRIVE_S = 3.0  # people do not open a page at the same moment


@dataclass
class Result:
    """Acknowledged values by (rater, client_id), and seconds of answered posts and of `next`."""

    acknowledged: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)  # (seq, value)
    post_s: list[float] = field(default_factory=list)
    next_s: list[float] = field(default_factory=list)
    down_s: list[float] = field(default_factory=list)  # from a kill to the next answer
    resent: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def percentiles(self, seconds: list[float]) -> str:
        """p50, p95, p99 and the longest in milliseconds."""
        if not seconds:
            return "none"
        p50, p95, p99, longest = np.quantile(seconds, [0.5, 0.95, 0.99, 1.0]) * 1000
        return f"p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms, longest {longest:.0f} ms"


class Server:
    """The server as a process, on the same port and log every time."""

    def __init__(self, root: Path, num_raters: int, database: str = "") -> None:
        self.root, self.database, self.port = root, database, 0
        self.tokens: dict[str, str] = {}
        self.names = [f"rater-{i:02d}" for i in range(num_raters)]
        self.process = self._start(*self.names)
        assert self.process.stdout is not None
        for _ in range(1 + num_raters):
            line = self.process.stdout.readline()
            address = re.fullmatch(r"(\S+) +http://127\.0\.0\.1:(\d+)/(?:operator)?#token=(\S+)\n", line)
            assert address is not None, f"the server did not start: {line!r}"
            self.port, self.tokens[address[1]] = int(address[2]), address[3]

    def _start(self, *raters: str) -> subprocess.Popen[str]:
        named = ["--raters", *raters] if raters else []
        named += ["--database", self.database] if self.database else []
        return subprocess.Popen(
            [
                sys.executable, "-m", "tests.annotate_workspace", str(self.root), "--port", str(self.port),
                "--overlap", "1.0", "--repeats", "0", "--degraded", "0", *named,
            ],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip

    def kill(self) -> None:
        """kill -9, and the same command again."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()
        self.process = self._start()

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


class Page:
    """One rater's browser: a connection that is opened again when it breaks."""

    def __init__(self, server: Server, name: str, result: Result, seed: int) -> None:
        self.server, self.name, self.result = server, name, result
        self.random = random.Random(seed)
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def rate(self, gap_s: float, until: float) -> None:
        """Post a rating every `gap_s` seconds on average, until the clock shows `until`."""
        await asyncio.sleep(self.random.uniform(0, ARRIVE_S))
        due = time.perf_counter() + self.random.uniform(0, gap_s)
        todo: list[dict[str, Any]] = []
        while True:
            if not todo:
                _, reply = await self._ask("GET", "/api/tasks/next?ahead=1", None, self.result.next_s)
                assert reply["tasks"], f"{self.name} ran out of tasks"
                task = reply["tasks"][0]
                heard = all_heard(task)
                todo = [
                    {"task_id": task["task_id"], "label": t["label"], "heard": heard} for t in task["tracks"]
                ]
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if time.perf_counter() >= until:
                return
            due = max(due, time.perf_counter() - gap_s) + gap_s * self.random.uniform(0.5, 1.5)
            await self._post(todo.pop(0))

    async def _post(self, about: dict[str, Any]) -> None:
        client_id = str(UUID(int=self.random.getrandbits(128), version=4))
        value = self.random.randrange(3)
        event = {"kind": "rate", "client_id": client_id, "client_time_ms": 1, "value": value, **about}
        status, answer = await self._ask("POST", "/api/events", event, self.result.post_s)
        if status != 200:
            self.result.refused[f"{status} {answer.get('reason')}"] += 1
            return
        self.result.acknowledged[self.name, client_id] = (answer["seq"], value)

    async def _ask(self, method: str, path: str, content: Any, seconds: list[float]) -> tuple[int, Any]:
        """One request, sent again until it is answered."""
        body = b"" if content is None else json.dumps(content).encode()
        head = self.head(method, path, len(body))
        while True:
            begin = time.perf_counter()
            try:
                status, answer = await self.exchange(head + body)
            except (OSError, asyncio.IncompleteReadError):
                self.streams = None
                self.result.resent += method == "POST"
                await asyncio.sleep(self.random.uniform(0.2, 1.5))  # or all would come back at once
                continue
            seconds.append(time.perf_counter() - begin)
            return status, answer

    def head(self, method: str, path: str, length: int = 0) -> bytes:
        """Return the head of a request."""
        return (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n"
            f"Content-Type: application/json\r\nAuthorization: Bearer {self.server.tokens[self.name]}\r\n\r\n"
        ).encode()

    async def exchange(self, sent: bytes) -> tuple[int, Any]:
        """Send a request and read its answer: status and JSON. Raises OSError or IncompleteReadError."""
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.server.port)
        reader, writer = self.streams
        writer.write(sent)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = re.search(r"content-length: (\d+)", head)
        assert length is not None, head
        return int(head.split()[1]), json.loads(await reader.readexactly(int(length[1])))


def make_root(root: Path, posts_each: int, num_tracks: int = 5) -> None:
    """A workspace with enough clips, and their media, so that posts are what is measured."""
    workspace = fill(root, posts_each // num_tracks + 5, num_tracks)
    assignments = make_assignments(workspace, AnnotateSettings())
    prepare(MediaStore(workspace, fake_waves()), assignments, list(assignments.clip_tasks))


def run_load(
    root: Path, num_raters: int, posts_per_s: float, seconds: float, kills: int, database: str = ""
) -> Result:
    """Raters post `posts_per_s` together for so long, while the server is killed `kills` times."""
    make_root(root, int(posts_per_s * seconds / num_raters * 1.5) + 5)
    server, result = Server(root, num_raters, database), Result()
    try:
        asyncio.run(_load(server, result, num_raters / posts_per_s, seconds, kills))
    finally:
        server.stop()
    return result


async def _load(server: Server, result: Result, gap_s: float, seconds: float, kills: int) -> None:
    begin = time.perf_counter()
    pages = [Page(server, name, result, seed) for seed, name in enumerate(server.names)]
    raters = [asyncio.create_task(page.rate(gap_s, begin + seconds)) for page in pages]
    for index in range(kills):
        await asyncio.sleep(max(0.0, begin + seconds * (index + 1) / (kills + 1) - time.perf_counter()))
        killed = time.perf_counter()
        await asyncio.to_thread(server.kill)
        await _answers(pages[index % len(pages)])
        result.down_s.append(time.perf_counter() - killed)
    await asyncio.gather(*raters)


async def _answers(page: Page) -> None:
    """Return when the server answers again."""
    asks = Page(page.server, page.name, Result(), 0)
    while True:
        try:
            await asks.exchange(asks.head("GET", "/api/me"))
            return
        except (OSError, asyncio.IncompleteReadError):
            asks.streams = None
            await asyncio.sleep(0.02)


def check(root: Path, result: Result) -> dict[str, int]:
    """Compare the log with the acknowledged events; every number but the first two should be 0."""
    log = EventLog.of(root)
    events = log.events()
    stored = {(event.rater, event.client_id): event for event in events}
    acknowledged = result.acknowledged
    folded = fold(read_histories(log).values())
    labels = Counter(rating.label for rating in folded.ratings.values())
    log.close()
    return {
        "acknowledged": len(acknowledged),
        "stored": len(events),
        "lost": sum(key not in stored for key in acknowledged),
        "doubled": len(events) - len(stored),
        "stored and never acknowledged": sum(key not in acknowledged for key in stored),
        "changed": sum(
            stored[key].seq != seq or stored[key].body["value"] != value
            for key, (seq, value) in acknowledged.items()
            if key in stored
        ),
        "ratings that are not what was acknowledged": sum(
            abs(labels[label] - sum(value == label for _, value in acknowledged.values()))
            for label in range(3)
        ),
        "refused": sum(result.refused.values()),
    }
