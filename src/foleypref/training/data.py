"""Which items a run learns from and which it holds out: pairs, clips or labelled candidates, split by clip.

Held out by clip, in the order of a hash of the clip's id: no clip is on both sides, and runs with different
seeds, objectives or curricula hold out the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from foleypref.workspace.records import ROUND, Clip, Pair, digest
from foleypref.workspace.selection import clips_of_split
from foleypref.workspace.store import Workspace


@dataclass(frozen=True)
class Label:
    """One candidate that is wanted or not, by people or by AudioScore; `weight` multiplies its loss."""

    candidate_id: str
    clip_id: str
    desirable: bool
    source: str  # "auto" | "human" | "simulated"
    weight: float = 1.0


@dataclass(frozen=True)
class TrainData:
    """The items on one side of the split. What an objective does not need is empty."""

    pairs: list[Pair] = field(default_factory=list)
    clips: list[Clip] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)

    def __add__(self, other: TrainData) -> TrainData:
        return TrainData(self.pairs + other.pairs, self.clips + other.clips, self.labels + other.labels)

    @property
    def clip_ids(self) -> set[str]:
        """Clips whose conditions are read."""
        named = {p.clip_id for p in self.pairs} | {label.clip_id for label in self.labels}
        return named | {c.clip_id for c in self.clips}

    @property
    def candidate_ids(self) -> set[str]:
        """Candidates whose latents are read."""
        return {i for p in self.pairs for i in (p.chosen, p.rejected)} | {x.candidate_id for x in self.labels}

    def identity(self) -> dict[str, str]:
        """What a run remembers its items by; kinds that are empty are not named."""
        ids: dict[str, list[object]] = {
            "pairs": [p.pair_id for p in self.pairs],
            "clips": [c.clip_id for c in self.clips],
            "labels": [[x.candidate_id, x.desirable, x.weight] for x in self.labels],
        }
        return {kind: f"{len(found)} {kind} {digest(found)}" for kind, found in ids.items() if found}

    def counts(self) -> str:
        """ "682 pairs", for people."""
        sizes = {"pairs": len(self.pairs), "clips": len(self.clips), "labels": len(self.labels)}
        text = ", ".join(f"{size} {kind}" for kind, size in sizes.items() if size) or "nothing"
        if not self.labels:
            return text
        sources = Counter(label.source for label in self.labels)
        found = ", ".join(f"{size} {source}" for source, size in sorted(sources.items()))
        return f"{text} ({sum(label.desirable for label in self.labels)} desirable; {found})"


def split_pairs(
    pairs: Sequence[Pair], sources: Sequence[str] | None, num_eval_pairs: int
) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on and pairs held out, after the filter on sources (None: all but later rounds').

    Raises ValueError if too little is left.
    """
    usable = [p for p in pairs if _wanted(p.source, sources)]
    if not usable:
        found = ", ".join(sorted({p.source for p in pairs}))
        where = f"pair_sources is {sources}, there are: {found}" if found else "run pair first"
        raise ValueError(f"there are no pairs to train on; {where}")
    ordered = sorted(usable, key=lambda p: (_order(p.clip_id), p.pair_id))
    held_out = ordered[:num_eval_pairs]
    clips = {p.clip_id for p in held_out}
    kept = [p for p in usable if p.clip_id not in clips]
    if len(kept) < len(held_out):
        raise ValueError(
            f"num_eval_pairs is {num_eval_pairs}, but holding out their clips leaves {len(kept)} of "
            f"{len(usable)} pairs to train on; choose a number well below half, or 0"
        )
    return kept, held_out


def _wanted(source: str, sources: Sequence[str] | None) -> bool:
    return not source.startswith(ROUND) if sources is None else source in sources


def split_clips(
    workspace: Workspace, split: str, num_held_out: int, held_out_too: set[str]
) -> tuple[list[Clip], list[Clip]]:
    """Clips of a split to train on, and held out: `held_out_too` where there are any, else the first by hash.

    Raises ValueError if the split has no clips or too few.
    """
    clips = clips_of_split(workspace, split)
    ordered = sorted(clips, key=lambda c: _order(c.clip_id))
    chosen = held_out_too or {c.clip_id for c in ordered[:num_held_out]}
    kept = [c for c in clips if c.clip_id not in chosen]
    if len(kept) < min(num_held_out, len(clips)):
        raise ValueError(
            f"num_eval_pairs is {num_held_out}, which leaves {len(kept)} of {len(clips)} clips to train on; "
            "choose a number well below half, or 0"
        )
    return kept, [c for c in ordered if c.clip_id in chosen]


def split_labels(
    labels: Sequence[Label], num_held_out: int, held_out_too: set[str]
) -> tuple[list[Label], list[Label]]:
    """Labels to train on and held out: all of the clips `held_out_too` if there are any, else the first.

    Raises ValueError if what is left lacks one of the two classes.
    """
    ordered = sorted(labels, key=lambda label: (_order(label.clip_id), label.candidate_id))
    held_out = [x for x in ordered if x.clip_id in held_out_too] if held_out_too else ordered[:num_held_out]
    clips = {label.clip_id for label in held_out}
    kept = [label for label in labels if label.clip_id not in clips]
    if len({label.desirable for label in kept}) < 2 or len(kept) < len(held_out):
        raise ValueError(
            f"num_eval_pairs is {num_held_out}, but holding out their clips leaves {len(kept)} of "
            f"{len(labels)} labels to train on, {sum(label.desirable for label in kept)} of them desirable; "
            "choose a number well below half, or 0"
        )
    return kept, held_out


def _order(clip_id: str) -> str:
    return digest("held-out", clip_id)
