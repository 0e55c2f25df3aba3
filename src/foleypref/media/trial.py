"""Decode files in child processes that may hang or die: every file gets an answer, within a time limit.

A damaged file can crash a decoder or keep it busy for ever, and neither can be caught inside one process. The
children speak JSON lines over their standard streams, so nothing of the caller's program is imported in them,
and they end by themselves when the caller is killed.
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
class Trial:
    """What decoding one window of a file showed; `reason` is why it cannot be used, "" when it can."""

    reason: str = ""
    video_s: float = 0.0  # how much of the window the picture covers
    fps: float = 0.0
    width: int = 0
    height: int = 0
    has_audio: bool = False
    note: str = ""  # "truncated", "silent audio", "no audio stream" …


def try_window(path: str, start_s: float, duration_s: float) -> Trial:
    """Decode the window of both streams and say what is there. Never raises for a bad file."""
    try:
        # One small picture a second: every frame is decoded, hardly any is converted.
        clip = read_clip(path, start_s=start_s, duration_s=duration_s, fps=1, size=32, sample_rate=8000)
    except MediaError as error:
        return Trial(str(error))
    if clip.frames is None:
        return Trial(f"{path}: no video stream")
    notes = ["truncated"] if clip.truncated else []
    heard = clip.wave is not None and bool(clip.audio_end_s) and float(abs(clip.wave).max()) > SILENCE
    if not heard:
        notes.append("silent audio" if clip.info.has_audio else "no audio stream")
    info, video_s = clip.info, clip.video_end_s or 0.0
    fps = info.fps or len(clip.frames) / max(video_s, 1e-3)
    return Trial("", video_s, fps, info.width or 0, info.height or 0, heard, ", ".join(notes))


def try_all(
    jobs: Sequence[tuple[str, float, float]], num_workers: int, limit_s: float
) -> Iterator[tuple[int, Trial]]:
    """Try (path, start_s, duration_s) jobs in `num_workers` children; yields (index, Trial) as they finish.

    A child that needs more than `limit_s` seconds for one file is killed, one that dies is replaced; both
    leave a Trial with the reason.
    """
    waiting = list(range(len(jobs)))[::-1]
    workers = [_Worker() for _ in range(min(num_workers, len(jobs)))]
    try:
        with selectors.DefaultSelector() as selector:
            for worker in workers:
                worker.give(waiting.pop(), jobs)
                selector.register(worker.answers, selectors.EVENT_READ, worker)
            while any(worker.job is not None for worker in workers):
                ready = {key.data for key, _ in selector.select(timeout=0.2)}
                for worker in workers:
                    job = worker.job
                    if job is None:
                        continue
                    trial = worker.answer(jobs[job][0], limit_s, worker in ready)
                    if trial is None:
                        continue
                    yield job, trial
                    if worker.process.poll() is not None:
                        selector.unregister(worker.answers)
                        worker.start()
                        selector.register(worker.answers, selectors.EVENT_READ, worker)
                    worker.job = None
                    if waiting:
                        worker.give(waiting.pop(), jobs)
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """One child and the job it is on."""

    def __init__(self) -> None:
        self.job: int | None = None
        self.since = 0.0
        self.start()

    def start(self) -> None:
        package = str(Path(__file__).resolve().parents[1])
        search = os.pathsep.join(p for p in (package, os.environ.get("PYTHONPATH")) if p)
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from foleypref.media.trial import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders print about every damaged packet
            env={**os.environ, "PYTHONPATH": search},
        )
        assert self.process.stdout is not None
        self.answers: Any = self.process.stdout

    def give(self, job: int, jobs: Sequence[tuple[str, float, float]]) -> None:
        self.job, self.since = job, time.monotonic()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died meanwhile: reading its answer will say so
            self.process.stdin.write(json.dumps(jobs[job]).encode() + b"\n")
            self.process.stdin.flush()

    def answer(self, path: str, limit_s: float, ready: bool) -> Trial | None:
        """The finished Trial, or None while there is time left. After a crash or kill the child has ended."""
        if ready:
            line = self.answers.readline()  # the child writes whole lines at once
            if line.endswith(b"\n"):
                return Trial(**json.loads(line))
            code = self.process.wait()
            return Trial(f"{path}: decoding it ended the process ({_cause(code)}); re-encode or remove it")
        if time.monotonic() - self.since > limit_s:
            self.process.kill()
            self.process.wait()
            return Trial(f"{path}: not decoded within {limit_s:g} s; re-encode or remove it")
        return None

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def serve() -> None:
    """The child: a JSON job a line in, a JSON Trial a line out, until the input closes."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    for line in sys.stdin.buffer:
        trial = try_window(*json.loads(line))
        answers.write(json.dumps(dataclasses.asdict(trial)).encode() + b"\n")


def _cause(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
