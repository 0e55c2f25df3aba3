"""A listening test for a browser, with frames and soundtracks that can be identified.

Frame i of the video shows i as seven black or white blocks, so it can be read from the pixels on the screen.
Every soundtrack is another noise, so the audible one is found by correlation.

`python -m tests.e2e.site ROOT [flags of foleypref annotate]` serves it in a process that can be killed.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foleypref.annotate.app import create_app
from foleypref.annotate.assignments import make_assignments
from foleypref.annotate.campaign import Campaign
from foleypref.annotate.event_log import EventLog
from foleypref.annotate.media_store import MediaStore
from foleypref.annotate.serve import annotate
from foleypref.annotate.settings import OPERATOR, AnnotateSettings
from foleypref.media.mux import write_video
from foleypref.settings.flags import parse
from foleypref.settings.parts import Settings
from foleypref.workspace.records import Candidate, Clip
from foleypref.workspace.store import Workspace

FPS, NUM_FRAMES, SAMPLE_RATE = 25, 75, 44_100
SECONDS = NUM_FRAMES / FPS
NUM_BITS, BLOCK = 7, 32
HOSTILE = "<script>window.hit = 1</script> & \"quotes\" 'here' <img src=x onerror='window.hit = 2'> </p>"


def make_workspace(root: Path, num_clips: int = 12, num_candidates: int = 5) -> Workspace:
    """Clips that can be rated; the caption of the first in every order of them is hostile, as all are."""
    workspace = Workspace(root)
    video = workspace.root / "videos" / "clip.mp4"
    write_video(video, numbered_frames(), FPS)
    clips = [
        Clip(
            Clip.make_id(f"rated-{i}", 0.0, SECONDS), "videos/clip.mp4", "align", f"Clip {i}: {HOSTILE}",
            0.0, SECONDS, FPS, 2 * BLOCK, NUM_BITS * BLOCK, True, {"event_times_s": [0.5, 1.75]},
        )
        for i in range(num_clips)
    ]  # fmt: skip
    workspace.append(clips)
    add_candidates(workspace, num_candidates)
    return workspace


def add_candidates(workspace: Workspace, num: int) -> None:
    """Made-up candidates of every clip, whose sound is the caller's to make."""
    candidates = [
        Candidate(
            Candidate.make_id(clip.clip_id, "world", "base", seed, "euler", 25, 4.5), clip.clip_id,
            "world", "base", seed, "euler", 25, 4.5, "latents/none", seed,
        )
        for clip in workspace.read(Clip)
        for seed in range(num)
    ]  # fmt: skip
    workspace.append(candidates)


def numbered_frames() -> np.ndarray:
    """(T, H, W, 3) uint8: frame i has block b white where bit b of i is set."""
    frames = np.zeros((NUM_FRAMES, 2 * BLOCK, NUM_BITS * BLOCK, 3), np.uint8)
    for i, frame in enumerate(frames):
        for bit in range(NUM_BITS):
            frame[:, bit * BLOCK : (bit + 1) * BLOCK] = 235 if i >> bit & 1 else 20
    return frames


def noise_waves(candidate_ids: Sequence[str]) -> Mapping[str, tuple[np.ndarray, int]]:
    """Noise below 4 kHz under a slow swell, another for every candidate."""
    by_id = {}
    for candidate_id in candidate_ids:
        generator = np.random.default_rng(int(candidate_id[:12], 16))
        spectrum = np.fft.rfft(generator.standard_normal(round(SECONDS * SAMPLE_RATE)))
        spectrum[np.fft.rfftfreq(round(SECONDS * SAMPLE_RATE), 1 / SAMPLE_RATE) > 4000] = 0
        wave = np.fft.irfft(spectrum, round(SECONDS * SAMPLE_RATE))
        swell = 0.6 + 0.4 * np.sin(2 * np.pi * (np.arange(len(wave)) / len(wave) * 2 + generator.random()))
        by_id[candidate_id] = ((wave / np.abs(wave).max() * swell).astype(np.float32), SAMPLE_RATE)
    return by_id


class Site:
    """The real application on a free port of loopback, served by a thread; the log is the real one."""

    def __init__(self, workspace: Workspace, waves: Any = noise_waves, **settings: Any) -> None:
        chosen = {"repeats": 0.0, "degraded": 0.0, "overlap": 1.0, "require_listen_s": 0.2, **settings}
        self.settings = AnnotateSettings(**chosen)
        self.log = EventLog.of(workspace.root)
        assignments = make_assignments(workspace, self.settings)
        self.campaign = Campaign(self.settings, self.log, MediaStore(workspace, waves), assignments)
        self.lose_replies = 0  # answers to posts that are thrown away after the work is done
        self._port = 0
        self.start()

    def start(self) -> None:
        """Serve, on the same port as before."""
        import uvicorn

        listening = socket.create_server(("127.0.0.1", self._port))
        self._port = listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._app = create_app(self.campaign, self.settings.public_url or self.url)
        config = uvicorn.Config(
            self._losing,
            log_level="error",
            lifespan="off",
            timeout_graceful_shutdown=1,
            ws="none",
            interface="asgi3",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listening],), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving; the log stays open."""
        self._server.should_exit = True
        self._thread.join(10)

    async def _losing(self, scope: Any, receive: Any, send: Any) -> None:
        """Run the application, and lose its reply if `lose_replies` says so."""

        async def dropped(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "status": 502}
            await send(message)

        lose = scope.get("method") == "POST" and self.lose_replies > 0
        self.lose_replies -= lose
        await self._app(scope, receive, dropped if lose else send)

    def rater(self, name: str) -> str:
        """Return the address of a new rater."""
        return f"{self.url}/#token={self.campaign.tokens.new_token(name)}"

    def operator(self) -> str:
        """Return a new address for the operator."""
        return f"{self.url}/operator#token={self.campaign.tokens.new_token(OPERATOR, OPERATOR)}"

    def events_of(self, rater: str, *kinds: str) -> list[dict[str, Any]]:
        """Return a rater's events of these kinds; by default all but listening."""
        chosen = kinds or ("rate", "compare", "rank", "skip", "undo")
        return [
            {**event.body, "task_id": event.task_id}
            for event in self.log.events(rater)
            if event.kind in chosen
        ]

    def close(self) -> None:
        """Stop serving and close the log."""
        self.stop()
        self.log.close()


def main(args: list[str]) -> None:
    """Serve a workspace, which is created if it does not exist."""
    root = Path(args.pop(0))
    workspace = Workspace(root) if (root / "workspace.json").exists() else make_workspace(root)
    annotate(
        workspace, parse(Settings, args, "e2e.site ROOT", settings=AnnotateSettings()).settings, noise_waves
    )


if __name__ == "__main__":
    main(sys.argv[1:])
