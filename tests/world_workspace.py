"""A small workspace of rendered and ingested world clips, made once a test run and copied for each test."""

from __future__ import annotations

import atexit
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from foleypref.ingest import IngestSettings, ingest
from foleypref.workspace.store import Workspace
from foleypref.world.make import make
from foleypref.world.settings import MakeSettings

NUM_CLIPS = 6


@cache
def _original() -> Path:
    root = Path(mkdtemp(prefix="foleypref-world-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    settings = MakeSettings(split="align", num_clips=NUM_CLIPS, out=root / "videos", num_workers=1)
    make(settings, quiet=True)
    ingest(Workspace(root / "workspace"), IngestSettings(folder=root / "videos"))
    return root / "workspace"


def world_workspace(folder: Path) -> Workspace:
    """A fresh copy with `NUM_CLIPS` clips of split align."""
    shutil.copytree(_original(), folder / "workspace")
    return Workspace(folder / "workspace")
