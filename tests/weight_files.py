"""Checkpoints for the tests of published weights: small files that look like the published ones."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from foleypref.published import registry
from foleypref.published.registry import WeightFile

GOLDEN = Path(__file__).parent / "golden"
PLAIN = WeightFile("plain-net.pth", "plain network of the tests")


def register(monkeypatch: pytest.MonkeyPatch, entry: WeightFile, path: Path | None = None) -> WeightFile:
    """Put an entry into the registry for one test, with the size and hashes of `path` if that is given."""
    if path is not None:
        data = path.read_bytes()
        entry = replace(
            entry, bytes=len(data), md5=hashlib.md5(data).hexdigest(), sha256=hashlib.sha256(data).hexdigest()
        )
    monkeypatch.setattr(registry, "FILES", (*(e for e in registry.FILES if e.name != entry.name), entry))
    monkeypatch.setitem(registry._BY_NAME, entry.name, entry)
    return entry


def plain_state() -> dict[str, Tensor]:
    """A few tensors of several dtypes, one of them 0-dimensional and one empty."""
    generator = torch.Generator().manual_seed(3)
    return {
        "first.weight": torch.randn(37, 11, generator=generator),
        "first.bias": torch.randn(37, generator=generator),
        "steps": torch.tensor(7),
        "half": torch.randn(5, 3, generator=generator).half(),
        "brain": torch.randn(9, generator=generator).bfloat16(),
        "mask": torch.tensor([True, False, True]),
        "empty": torch.zeros(0, 4),
    }


def same(state: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    """Whether two state dicts have the same names, dtypes and values."""
    return state.keys() == expected.keys() and all(
        state[key].dtype == tensor.dtype and torch.equal(state[key], tensor)
        for key, tensor in expected.items()
    )


def small_mmaudio(*, v2: bool = False) -> dict[str, Tensor]:
    """Just enough of MMAudio small-16k's keys and shapes, with the extras of a version 1 file."""
    second = "2" if v2 else "1"
    state = {
        "audio_input_proj.0.weight": torch.randn(448, 20, 7),
        "t_embed.mlp.0.weight": torch.randn(448, 256),
        f"clip_input_proj.{second}.w1.weight": torch.randn(4, 4, 3),
        **{f"joint_blocks.{i}.latent_block.linear1.bias": torch.randn(4) for i in range(4)},
        **{f"fused_blocks.{i}.linear1.bias": torch.randn(4) for i in range(8)},
    }
    extras = {key: torch.randn(2, 3) for key in ("latent_rot", "clip_rot", "t_embed.freqs")}
    return state if v2 else state | extras


def golden_keys(name: str, entry: str = "keys") -> dict[str, Tensor]:
    """The tensors that a golden key list names, in full shape and without memory."""
    keys = json.loads((GOLDEN / f"mmaudio_keys_{name}.json").read_text())[entry]
    return {key: torch.empty(shape, device="meta") for key, (shape, _) in keys.items()}


def as_large_as_life(name: str) -> dict[str, Tensor]:
    """The tensors of a golden key list in full shape, each a single number in memory and in a file."""
    return {key: torch.zeros(()).expand(tensor.shape) for key, tensor in golden_keys(name).items()}


@contextlib.contextmanager
def not_root() -> Iterator[None]:
    """Without root's right to write into read-only folders, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


class Server:
    """A web server on this machine that serves `files`, can break off, and remembers what it was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.etag = '"one"'
        self.ranges = True  # whether it answers Range
        self.break_after: int | None = None  # bytes of one answer, once
        self.asked: list[tuple[str, str, str | None]] = []  # method, path, Range
        self.headers: dict[str, str] = {}  # sent with every file
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                owner._answer(self, body=False)

            def do_GET(self) -> None:
                owner._answer(self, body=True)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def gets(self) -> list[str | None]:
        """The Range header of every GET so far."""
        return [wanted for method, _, wanted in self.asked if method == "GET"]

    def _answer(self, handler: http.server.BaseHTTPRequestHandler, *, body: bool) -> None:
        wanted = handler.headers.get("Range")
        self.asked.append((handler.command, handler.path, wanted))
        data = self.files.get(handler.path)
        if data is None:
            handler.send_error(404)
            return
        start = 0
        tag = handler.headers.get("If-Range")
        if wanted and self.ranges and tag in (None, self.etag):
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])  # type: ignore[index]
            if start >= len(data):
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{len(data)}")
                handler.end_headers()
                return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Length", str(len(data) - start))
        handler.send_header("ETag", self.etag)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        if body:
            stop = len(data) if self.break_after is None else start + self.break_after
            self.break_after = None
            handler.wfile.write(data[start:stop])
