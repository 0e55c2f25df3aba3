"""The command as people give it: addresses, a port in use, Ctrl-C, kill -9, the extra that is missing."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from foleypref.annotate.serve import _base_url, annotate
from foleypref.annotate.settings import AnnotateSettings
from foleypref.workspace.store import Workspace
from tests.annotate_http import Client
from tests.annotate_workspace import all_heard, fake_waves, fill

QUIET = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@contextmanager
def running(num: int, *command: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Client]]]:
    """Start the server as a process; yield it with a client for each of `num` printed addresses."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command, "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **QUIET},
        cwd=Path(__file__).parents[2],
        # a shell that started the tests in the background has told them to ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout is not None
    clients: dict[str, Client] = {}
    for _ in range(num):
        line = process.stdout.readline()
        address = re.fullmatch(r"(\S+) +http://127\.0\.0\.1:(\d+)/(?:operator)?#token=(\S+)\n", line)
        assert address is not None, line + (process.stderr.read() if process.stderr else "")
        clients[address[1]] = Client(int(address[2]), address[3])
    try:
        yield process, clients
    finally:
        process.kill()
        process.communicate()


def test_addresses_kill_9_and_ctrl_c(tmp_path: Path) -> None:
    """Killed in the middle of a task and started again: the same token, task and answers. Media that are
    there need no model, so the second time it is the command itself."""
    root = tmp_path / "w"
    fill(root, num_clips=3)
    with running(3, "tests.annotate_workspace", str(root), "--raters", "ann", "bob") as (process, clients):
        assert list(clients) == ["operator", "ann", "bob"]
        ann = clients["ann"]
        (task,) = ann.get("/api/tasks/next").json["tasks"]
        heard = all_heard(task)
        assert ann.say("rate", task_id=task["task_id"], label="A", value=2, heard=heard).status == 200
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    verb = ("foleypref", "annotate", str(root), "--raters", "eve", "--renew", "operator")
    with running(2, *verb) as (process, clients):
        assert list(clients) == ["operator", "eve"]
        ann = Client(clients["eve"].port, ann.token)
        (again,) = ann.get("/api/tasks/next").json["tasks"]
        assert (again["task_id"], again["tracks"][0]["given"]) == (task["task_id"], 2)
        names = [r["name"] for r in clients["operator"].get("/api/operator/summary").json["raters"]]
        assert names == ["ann", "bob", "eve"]
        process.send_signal(signal.SIGINT)
        _, printed = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "addresses given before stay good: ann, bob" in printed
    assert "the same command goes on where it was" in printed
    assert "Traceback" not in printed
    assert not any(str(client.token) in printed for client in (ann, *clients.values()))


def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "w", num_clips=2)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            ValueError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"
        ):
            annotate(workspace, AnnotateSettings(port=port), fake_waves())
    with pytest.raises(ValueError, match="cannot listen on nowhere"):
        annotate(workspace, AnnotateSettings(host="nowhere.invalid"), fake_waves())


def test_two_servers_on_one_workspace_are_one_too_many(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "w", num_clips=2)
    with workspace.lock("annotate"), pytest.raises(ValueError, match="another process is running 'annotate'"):
        annotate(Workspace(workspace.root), AnnotateSettings(port=0), fake_waves())


def test_it_listens_here_alone_unless_told_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert AnnotateSettings().host == "127.0.0.1"
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
    workspace = fill(tmp_path / "w", num_clips=2)
    annotate(workspace, AnnotateSettings(port=0), fake_waves())
    captured = capsys.readouterr()
    assert re.search(r"^operator +http://127\.0\.0\.1:\d+/operator#token=\S{43}$", captured.out, re.M)
    assert re.search(r"^rater +http://127\.0\.0\.1:\d+/#token=\S{43}$", captured.out, re.M)
    assert "plain HTTP" not in captured.err
    exposed = AnnotateSettings(
        port=0, host="0.0.0.0", public_url="https://rate.example.org/", renew=("rater",)
    )
    annotate(workspace, exposed, fake_waves())
    captured = capsys.readouterr()
    assert "listens on 0.0.0.0" in captured.err
    assert "plain HTTP" in captured.err
    assert "reverse proxy" in captured.err
    assert re.search(r"^rater +https://rate\.example\.org/#token=\S{43}$", captured.out, re.M)
    assert "0.0.0.0" not in _base_url("0.0.0.0", 1)
    assert _base_url("::1", 80) == "http://[::1]:80"


def test_settings_that_make_no_sense(tmp_path: Path) -> None:
    for settings in (
        {"raters": ("a b",)}, {"raters": ("../x",)}, {"skip_reasons": ()}, {"skip_reasons": ("x", "x")},
        {"skip_reasons": tuple("abcdefghij")}, {"public_url": "rate.example.org"}, {"num_tracks": 10},
        {"public_url": "https://rate.example.org/path"}, {"overlap": 1.5}, {"task": "guess"},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="validation error"):
            AnnotateSettings(**settings)  # type: ignore[arg-type]


WITHOUT = """
import importlib.util, sys
absent, root = sys.argv[1:]
sys.modules[absent] = None
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == absent else find(name, *more)
import foleypref.cli.main
print([foleypref.cli.main.main(["annotate", root, "--port=0"]), foleypref.cli.main.main(["fit", root])])
"""


@pytest.mark.parametrize(
    ("package", "annotated"), [("fastapi", True), ("sqlalchemy", False), ("sqlalchemy", True)]
)
def test_without_its_extra_the_error_names_it(tmp_path: Path, package: str, annotated: bool) -> None:
    """A workspace without an event log is fitted without the extra."""
    workspace = fill(tmp_path / "w", num_clips=2)
    if annotated:
        (workspace.root / "annotate").mkdir()
        (workspace.root / "annotate" / "book.sqlite").touch()
    code = [sys.executable, "-c", WITHOUT, package, str(workspace.root)]
    done = subprocess.run(code, capture_output=True, text=True, check=True)
    assert done.stdout == "[2, 2]\n"
    first, second = done.stderr.splitlines()
    assert first == (
        f"foleypref annotate: annotate needs the package {package!r}; "
        "install it with `pip install 'foleypref[annotate]'`"
    )
    if annotated and package == "sqlalchemy":
        assert second.removeprefix("foleypref fit") == first.removeprefix("foleypref annotate")
    else:
        assert "found 0 rated candidates" in second


def test_the_tool_s_packages_are_not_imported_before_they_are_needed() -> None:
    code = (
        "import sys, foleypref.cli.main, foleypref.fit, foleypref.pair, foleypref.cli.verbs;"
        "print([m for m in ('fastapi', 'uvicorn', 'sqlalchemy', 'psycopg') if m in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"
