"""Ratings and votes of the rating tool, brought into the workspace's tables."""

from __future__ import annotations

from foleypref.annotate import require
from foleypref.workspace.store import Workspace


def sync_labels(workspace: Workspace) -> None:
    """What people said in the rating tool, as ratings and votes; nothing where nobody has opened it."""
    folder = workspace.annotate
    if not any((folder / name).exists() for name in ("book.sqlite", "database.url")):
        return
    require("sqlalchemy")
    from foleypref.annotate.fold import sync

    sync(workspace)
