"""Headless Chromium, driven through its own debugging pipe: no driver, no package, no port.

The DevTools protocol is JSON, one NUL-ended message at a time, read from file descriptor 3 of the browser and
written to 4. Each `Tab` has its own browser context, so two tabs are two people at two machines.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from queue import Empty, Queue
from tempfile import mkdtemp
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--mute-audio",
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--disable-dev-shm-usage",
    "--disable-backgrounding-occluded-windows",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "--disable-extensions",
    "--disable-default-apps",
    "--remote-debugging-pipe",
)
# A child has 0 to 2 and what `pass_fds` names, under its old number; Chromium wants 3 and 4.
EXEC = (
    "import os, sys; a, b = (os.dup(int(fd)) for fd in sys.argv[1:3]); a, b = os.dup(a), os.dup(b); "
    "os.dup2(a, 3); os.dup2(b, 4); os.execv(sys.argv[3], sys.argv[3:])"
)
KEYS = {
    " ": ("Space", 32), "Enter": ("Enter", 13), "Escape": ("Escape", 27), "Tab": ("Tab", 9),
    "ArrowLeft": ("ArrowLeft", 37), "ArrowUp": ("ArrowUp", 38), "ArrowRight": ("ArrowRight", 39),
    "ArrowDown": ("ArrowDown", 40),
}  # fmt: skip


def find_chromium() -> str | None:
    """Where Chromium is, if it is installed."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class ProtocolError(RuntimeError):
    """The browser refused a command, or a script of a test threw."""


class Chromium:
    """One browser process with its own profile; `close` removes both."""

    def __init__(self, path: str) -> None:
        self.profile = Path(mkdtemp(prefix="foleypref-chromium-"))
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        command = [sys.executable, "-c", EXEC, str(theirs_in), str(theirs_out), path, *FLAGS]
        self.process = subprocess.Popen(
            [*command, f"--user-data-dir={self.profile}", "about:blank"],
            pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._numbers = count(1)
        self._replies: dict[int, Queue[dict[str, Any]]] = {}
        self._tabs: dict[str, Tab] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()
        self.send("Browser.getVersion", patience_s=60)

    def send(self, method: str, session: str = "", patience_s: float = 30, **params: Any) -> dict[str, Any]:
        """One command and its result. Raises ProtocolError."""
        number = next(self._numbers)
        answer = self._replies[number] = Queue()
        message = {"id": number, "method": method, "params": params}
        with self._lock:
            data = json.dumps({**message, "sessionId": session} if session else message).encode() + b"\0"
            while data:
                data = data[os.write(self._out, data) :]
        try:
            reply = answer.get(timeout=patience_s)
        except Empty:
            raise ProtocolError(f"{method}: no answer in {patience_s} s") from None
        finally:
            del self._replies[number]
        if "error" in reply:
            raise ProtocolError(f"{method}: {reply['error'].get('message')}")
        return dict(reply["result"])

    def _read(self) -> None:
        rest = b""
        while chunk := os.read(self._in, 1 << 20):
            *messages, rest = (rest + chunk).split(b"\0")
            for raw in messages:
                message = json.loads(raw)
                if "id" in message and message["id"] in self._replies:
                    self._replies[message["id"]].put(message)
                elif tab := self._tabs.get(message.get("sessionId", "")):
                    tab.note(message["method"], message["params"])

    def open(self, width: int = 1280, height: int = 720, before: str = "") -> Tab:
        """An empty tab of a new person; `before` is a script that runs ahead of every page's own."""
        context = self.send("Target.createBrowserContext")["browserContextId"]
        target = self.send("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = self._tabs[session] = Tab(self, session, context)
        for domain in ("Page", "Runtime", "Network", "Log"):
            tab.send(f"{domain}.enable")
        tab.size(width, height)
        tab.send("Emulation.setFocusEmulationEnabled", enabled=True)
        if before:
            tab.send("Page.addScriptToEvaluateOnNewDocument", source=before)
        return tab

    def close(self) -> None:
        """End the browser and remove its profile."""
        try:
            self.send("Browser.close", patience_s=5)
            self.process.wait(10)
        except (ProtocolError, OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait(10)
        shutil.rmtree(self.profile, ignore_errors=True)


class Tab:
    """One page. `problems` are what its console called errors, `requests` the addresses it asked for."""

    def __init__(self, browser: Chromium, session: str, context: str) -> None:
        self.browser, self.session, self.context = browser, session, context
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        self.presses = 0

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One command to this page."""
        return self.browser.send(method, self.session, **params)

    def note(self, method: str, params: dict[str, Any]) -> None:
        """An event, on the reading thread: nothing may be sent and waited for here."""
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.problems.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Page.javascriptDialogOpening":
            self.dialogs.append(params["message"])
            accept = lambda: self.send("Page.handleJavaScriptDialog", accept=True)  # noqa: E731
            threading.Thread(target=accept, daemon=True).start()

    def goto(self, url: str) -> None:
        """Open an address, via about:blank, because a change of only the fragment loads nothing."""
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=url)

    def reload(self) -> None:
        """Reload the page, as F5 does."""
        self.send("Page.reload")
        time.sleep(0.1)  # or the old document answers

    def size(self, width: int, height: int) -> None:
        """Set the window's size in CSS pixels."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def dark(self, on: bool = True) -> None:
        """Ask for the dark or the light page."""
        value = "dark" if on else "light"
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def js(self, expression: str) -> Any:
        """The value of an expression; promises are waited for. Raises ProtocolError if it throws."""
        reply = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in reply:
            details = reply["exceptionDetails"]
            raise ProtocolError(details.get("exception", {}).get("description") or details["text"])
        return reply["result"].get("value")

    def wait(self, expression: str, patience_s: float = 20) -> Any:
        """The first true value of an expression. Raises AssertionError when it does not come."""
        until, last = time.monotonic() + patience_s, None
        while time.monotonic() < until:
            try:
                last = self.js(expression)
            except ProtocolError as error:  # between two documents
                last = error
            else:
                if last:
                    return last
            time.sleep(0.03)
        raise AssertionError(f"{expression} stayed {last!r} for {patience_s} s; problems: {self.problems}")

    def press(self, key: str, shift: bool = False) -> None:
        """One key down and up, as a person presses it."""
        code, number = KEYS.get(key) or (f"Key{key.upper()}", ord(key.upper()))
        if key.isdigit():
            code = f"Digit{key}"
        shown: dict[str, Any] = {
            "key": key,
            "code": code,
            "windowsVirtualKeyCode": number,
            "modifiers": 8 * shift,
        }
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        down = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        self.send("Input.dispatchKeyEvent", **down, **shown)
        self.send("Input.dispatchKeyEvent", type="keyUp", **shown)
        self.presses += 1

    def text(self, selector: str) -> str:
        """The text that an element shows."""
        return str(self.js(f"document.querySelector({json.dumps(selector)}).innerText"))

    def screenshot(self, path: Path) -> Path:
        """Save what the window shows as PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))
        return path

    def close(self) -> None:
        """End this person's visit and forget everything about it."""
        self.browser.send("Target.disposeBrowserContext", browserContextId=self.context)


def until(check: Callable[[], Any], patience_s: float = 20) -> Any:
    """The first true value of a Python check. Raises AssertionError when it does not come."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if value := check():
            return value
        time.sleep(0.03)
    raise AssertionError(f"still {check()!r} after {patience_s} s")
