"""The door for stages: brings the rating tool's labels into the workspace's tables."""

from __future__ import annotations

from foleypref.annotate import require
from foleypref.workspace.store import Workspace


def sync_labels(workspace: Workspace) -> None:
    """Update ratings and votes from the event log; does nothing if the workspace has none."""
    folder = workspace.annotate
    if not any((folder / name).exists() for name in ("book.sqlite", "database.url")):
        return
    require("sqlalchemy")
    from foleypref.annotate.fold import sync

    sync(workspace)
