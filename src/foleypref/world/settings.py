"""How many clips of the embedded world are rendered, and which classes they show."""

from __future__ import annotations

from pathlib import Path

from foleypref.settings.parts import Settings
from foleypref.world import CLASSES, SPLITS


class WorldSettings(Settings):
    """How many clips of each split of the embedded world to render.

    `unseen` is a test split that shows only the held-out classes; of the other splits only `wild` shows them.
    """

    wild: int = 0
    judge: int = 0
    oracle: int = 0
    align: int = 0
    test: int = 0
    unseen: int = 0
    held_out_classes: tuple[str, ...] = ()
    seed: int = 0
    num_workers: int | None = None  # None: one per usable core

    def counts(self) -> dict[str, int]:
        """Return the number of clips by split, of the splits that have any."""
        return {split: getattr(self, split) for split in SPLITS if getattr(self, split)}

    def classes(self, split: str) -> tuple[str, ...]:
        """Return the classes that a split may show."""
        held_out = set(self.held_out_classes)
        if split == "unseen":
            return tuple(name for name in CLASSES if name in held_out)
        return CLASSES if split == "wild" else tuple(name for name in CLASSES if name not in held_out)


class MakeSettings(Settings):
    """The clips that `foleypref world make` renders: those of a split from index `start` on."""

    split: str = "test"
    num_clips: int = 64
    out: Path = Path("world")
    seed: int = 0
    start: int = 0  # index of the first clip
    num_workers: int | None = None  # processes; None: one per usable core; 1: this process
