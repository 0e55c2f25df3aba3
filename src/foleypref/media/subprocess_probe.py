"""Decode files in child processes, which may hang or die: every file gets a result within a time limit.

A damaged file can crash a decoder or keep it busy for ever, and neither can be caught inside one process. The
children exchange JSON lines over their standard streams, so nothing of the caller's program is imported in
them, and they end by themselves when the caller is killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from foleypref.media.clip import MediaError, read_clip

SILENCE = 1e-4  # a peak under -80 dB is a soundtrack with nothing on it


@dataclasses.dataclass(frozen=True)
class ProbedWindow:
    """Properties of a decoded window; `reason` says why the file cannot be used, "" if it can."""

    reason: str = ""
    video_s: float = 0.0  # seconds of the window that the picture covers
    fps: float = 0.0
    width: int = 0
    height: int = 0
    has_audio: bool = False
    note: str = ""  # "truncated", "silent audio", "no audio stream" …


def probe_window(path: str, start_s: float, duration_s: float) -> ProbedWindow:
    """Decode the window of both streams and describe it. Never raises for a bad file."""
    try:
        # One small picture a second: every frame is decoded, hardly any is converted.
        clip = read_clip(path, start_s=start_s, duration_s=duration_s, fps=1, size=32, sample_rate=8000)
    except MediaError as error:
        return ProbedWindow(str(error))
    if clip.frames is None:
        return ProbedWindow(f"{path}: no video stream")
    notes = ["truncated"] if clip.truncated else []
    is_audible = clip.wave is not None and bool(clip.audio_end_s) and float(abs(clip.wave).max()) > SILENCE
    if not is_audible:
        notes.append("silent audio" if clip.info.has_audio else "no audio stream")
    info, video_s = clip.info, clip.video_end_s or 0.0
    return ProbedWindow(
        video_s=video_s,
        fps=info.fps or len(clip.frames) / max(video_s, 1e-3),
        width=info.width or 0,
        height=info.height or 0,
        has_audio=is_audible,
        note=", ".join(notes),
    )


def probe_in_subprocesses(
    jobs: Sequence[tuple[str, float, float]], num_workers: int, limit_s: float
) -> Iterator[tuple[int, ProbedWindow]]:
    """Probe (path, start_s, duration_s) windows in child processes; yield (index, result) as they finish.

    A child that takes more than `limit_s` seconds for one file is killed, and one that died is replaced; in
    both cases the result has the reason.
    """
    waiting = list(enumerate(jobs))[::-1]
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as at_exit:
        workers = [_Worker(selector) for _ in range(min(num_workers, len(jobs)))]
        for worker in workers:
            at_exit.callback(worker.stop)
            worker.give(*waiting.pop())
        while busy := [worker for worker in workers if worker.index is not None]:
            ready = {key.data for key, _ in selector.select(timeout=0.2)}
            for worker in busy:
                probed = worker.result(limit_s, worker in ready)
                if probed is None:
                    continue
                assert worker.index is not None
                yield worker.index, probed
                worker.index = None
                worker.restart_if_ended()
                if waiting:
                    worker.give(*waiting.pop())


class _Worker:
    """One child process and the job that it works on; `index` is None while it has none."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self.index: int | None = None
        self.path, self.since = "", 0.0
        self.selector = selector
        self.start()

    def start(self) -> None:
        package = str(Path(__file__).resolve().parents[2])
        search = os.pathsep.join(p for p in (package, os.environ.get("PYTHONPATH")) if p)
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from foleypref.media.subprocess_probe import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders print about every damaged packet
            env={**os.environ, "PYTHONPATH": search},
        )
        assert self.process.stdout is not None
        self.results: Any = self.process.stdout
        self.selector.register(self.results, selectors.EVENT_READ, self)

    def give(self, index: int, job: tuple[str, float, float]) -> None:
        self.index, self.path, self.since = index, job[0], time.monotonic()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died: `result` reports that
            self.process.stdin.write(json.dumps(job).encode() + b"\n")
            self.process.stdin.flush()

    def result(self, limit_s: float, ready: bool) -> ProbedWindow | None:
        """Return the result, or None while there is time left. After a crash or kill the child has ended."""
        if ready:
            line = self.results.readline()  # the child writes whole lines at once
            if line.endswith(b"\n"):
                return ProbedWindow(**json.loads(line))
            code = self.process.wait()
            cause = f"signal {-code}" if code < 0 else f"exit code {code}"
            return ProbedWindow(
                f"{self.path}: decoding it ended the process ({cause}); re-encode or remove it"
            )
        if time.monotonic() - self.since > limit_s:
            self.process.kill()
            self.process.wait()
            return ProbedWindow(f"{self.path}: not decoded within {limit_s:g} s; re-encode or remove it")
        return None

    def restart_if_ended(self) -> None:
        if self.process.poll() is not None:
            self.selector.unregister(self.results)
            self.start()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def serve() -> None:
    """Run as the child: read a JSON job per line and write a JSON result per line until the input closes."""
    results = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints must not get between the results
    for line in sys.stdin.buffer:
        probed = probe_window(*json.loads(line))
        results.write(json.dumps(dataclasses.asdict(probed)).encode() + b"\n")
