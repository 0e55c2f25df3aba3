"""Enough of the Hugging Face hub on localhost for its own client to make, fill and fetch a repository."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Repository:
    """One repository: its files, whether it is private, and every path that was asked for."""

    def __init__(self) -> None:
        self.id, self.private = "", False
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []

    @property
    def sha(self) -> str:
        """Of its files, 40 hexadecimal characters as a commit's."""
        return hashlib.sha1(b"".join(n.encode() + c for n, c in sorted(self.files.items()))).hexdigest()

    def info(self) -> dict[str, Any]:
        """What `repo_info` reads."""
        siblings = [{"rfilename": name} for name in self.files]
        return {"id": self.id, "private": self.private, "sha": self.sha, "siblings": siblings}


@contextmanager
def hub_server() -> Iterator[tuple[str, Repository]]:
    """The endpoint's URL and its one repository."""
    repository = Repository()
    handler = type("Handler", (_Handler,), {"repository": repository})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", repository
    finally:
        server.shutdown()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    repository: Repository
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""

    def do_POST(self) -> None:
        repository, body = self.repository, self._body()
        repository.asked.append(self.path)
        if self.path == "/api/repos/create":
            said = json.loads(body)
            repository.id = f"{said['organization']}/{said['name']}"
            repository.private = said["visibility"] == "private"
            self._json({"url": f"http://127.0.0.1/{repository.id}"})
        elif self.path.endswith("/preupload/main"):
            names = [file["path"] for file in json.loads(body)["files"]]
            self._json(
                {"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]}
            )
        elif self.path.endswith("/commit/main"):
            for line in body.splitlines():
                said = json.loads(line)
                if said["key"] == "file":
                    repository.files[said["value"]["path"]] = base64.b64decode(said["value"]["content"])
            url = f"http://127.0.0.1/{repository.id}/commit/{repository.sha}"
            self._json({"commitUrl": url, "commitOid": repository.sha, "success": True})
        else:
            self._json({})  # what it says of a card's YAML

    def do_GET(self) -> None:
        repository, path = self.repository, self.path.partition("?")[0]
        repository.asked.append(path)
        if "/tree/" in path:
            tree = [
                {"type": "file", "path": n, "size": len(c), "oid": _oid(c)}
                for n, c in repository.files.items()
            ]
            self._json(tree)
        elif path.startswith("/api/models/"):
            self._json(repository.info())
        elif "/resolve/" in path:
            self._file(path.rpartition("/")[2])
        else:
            self._json({})

    do_HEAD = do_GET

    def _file(self, name: str) -> None:
        content = self.repository.files[name]
        headers = {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": self.repository.sha}
        self._send(content, "application/octet-stream", headers)

    def _json(self, data: Any) -> None:
        self._send(json.dumps(data).encode(), "application/json", {})

    def _send(self, content: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
