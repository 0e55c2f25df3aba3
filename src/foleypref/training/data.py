"""Which items a run learns from and which it holds out: pairs, clips or labelled candidates, split by clip.

Clips are held out in the order of a hash of their ids, so no clip is on both sides, and runs with different
seeds, objectives or curricula hold out the same clips.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import TypeVar

from foleypref.workspace.records import ROUND, Clip, Pair, digest
from foleypref.workspace.selection import clips_of_split
from foleypref.workspace.store import Workspace


@dataclass(frozen=True)
class Label:
    """One candidate labelled desirable or not, by raters or by AudioScore; `weight` multiplies its loss."""

    candidate_id: str
    clip_id: str
    desirable: bool
    source: str  # "auto" | "human" | "simulated"
    weight: float = 1.0


T = TypeVar("T", Pair, Clip, Label)


@dataclass(frozen=True)
class TrainData:
    """The items on one side of the split. Kinds that the objective does not need are empty."""

    pairs: list[Pair] = field(default_factory=list)
    clips: list[Clip] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)

    def __add__(self, other: TrainData) -> TrainData:
        return TrainData(self.pairs + other.pairs, self.clips + other.clips, self.labels + other.labels)

    @property
    def clip_ids(self) -> set[str]:
        """The clips of all items, whose conditions are read."""
        named = {p.clip_id for p in self.pairs} | {label.clip_id for label in self.labels}
        return named | {c.clip_id for c in self.clips}

    @property
    def candidate_ids(self) -> set[str]:
        """The candidates that pairs and labels name, whose latents are read."""
        return {i for p in self.pairs for i in (p.chosen, p.rejected)} | {x.candidate_id for x in self.labels}

    def identity(self) -> dict[str, str]:
        """Return a hash of each kind of items that is not empty; it must not change while a run lasts."""
        ids: dict[str, list[object]] = {
            "pairs": [p.pair_id for p in self.pairs],
            "clips": [c.clip_id for c in self.clips],
            "labels": [[x.candidate_id, x.desirable, x.weight] for x in self.labels],
        }
        return {kind: f"{len(rows)} {kind} {digest(rows)}" for kind, rows in ids.items() if rows}

    def counts(self) -> str:
        """Return how many items there are, as "682 pairs"."""
        sizes = {"pairs": len(self.pairs), "clips": len(self.clips), "labels": len(self.labels)}
        text = ", ".join(f"{size} {kind}" for kind, size in sizes.items() if size) or "nothing"
        if not self.labels:
            return text
        sources = Counter(label.source for label in self.labels)
        by_source = ", ".join(f"{size} {source}" for source, size in sorted(sources.items()))
        return f"{text} ({sum(label.desirable for label in self.labels)} desirable; {by_source})"


def split_pairs(
    pairs: Sequence[Pair], sources: Sequence[str] | None, num_eval_pairs: int
) -> tuple[list[Pair], list[Pair]]:
    """Return the pairs to train on and those held out, of some sources (None: all except later rounds).

    Raises ValueError if too few are left.
    """
    if sources is None:
        usable = [p for p in pairs if not p.source.startswith(ROUND)]
    else:
        usable = [p for p in pairs if p.source in sources]
    if not usable:
        existing = ", ".join(sorted({p.source for p in pairs}))
        where = f"pair_sources is {sources}, there are: {existing}" if existing else "run pair first"
        raise ValueError(f"there are no pairs to train on; {where}")
    train, held_out = _hold_out(usable, "pair_id", num_eval_pairs)
    if len(train) < len(held_out):
        raise ValueError(
            f"num_eval_pairs is {num_eval_pairs}, but holding out their clips leaves {len(train)} of "
            f"{len(usable)} pairs to train on; choose a number well below half, or 0"
        )
    return train, held_out


def split_clips(
    workspace: Workspace, split: str, num_held_out: int, held_out_too: set[str]
) -> tuple[list[Clip], list[Clip]]:
    """Return the clips of a split to train on, and those held out.

    These are the clips `held_out_too` if there are any, else the first by hash. Raises ValueError if the
    split has no clips or too few.
    """
    clips = clips_of_split(workspace, split)
    train, held_out = _hold_out(clips, "clip_id", num_held_out, held_out_too)
    if len(train) < min(num_held_out, len(clips)):
        raise ValueError(
            f"num_eval_pairs is {num_held_out}, which leaves {len(train)} of {len(clips)} clips to train on; "
            "choose a number well below half, or 0"
        )
    return train, held_out


def split_labels(
    labels: Sequence[Label], num_held_out: int, held_out_too: set[str]
) -> tuple[list[Label], list[Label]]:
    """Return the labels to train on, and those held out.

    These are all labels of the clips `held_out_too` if there are any, else the first by hash. Raises
    ValueError if one of the two classes is missing among the others.
    """
    train, held_out = _hold_out(labels, "candidate_id", num_held_out, held_out_too)
    if len({label.desirable for label in train}) < 2 or len(train) < len(held_out):
        raise ValueError(
            f"num_eval_pairs is {num_held_out}, but holding out their clips leaves {len(train)} of "
            f"{len(labels)} labels to train on, {sum(label.desirable for label in train)} of them desirable; "
            "choose a number well below half, or 0"
        )
    return train, held_out


def _hold_out(
    items: Sequence[T], id_name: str, num: int, clip_ids: Set[str] = frozenset()
) -> tuple[list[T], list[T]]:
    """Return the items of other clips than those held out, and all of `clip_ids` or else the first `num`."""
    ordered = sorted(items, key=lambda item: (digest("held-out", item.clip_id), getattr(item, id_name)))
    held_out = [item for item in ordered if item.clip_id in clip_ids] if clip_ids else ordered[:num]
    held_out_clips = {item.clip_id for item in held_out}
    return [item for item in items if item.clip_id not in held_out_clips], held_out
