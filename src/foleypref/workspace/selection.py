"""Which clips and candidates a stage works on: those of a split, and among them one model's."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from foleypref.workspace.columns import among
from foleypref.workspace.records import GROUND_TRUTH, Candidate, Clip
from foleypref.workspace.store import Workspace


def clips_of_split(workspace: Workspace, split: str) -> list[Clip]:
    """Return a split's clips in the order of their ids. Raises ValueError if there are none."""
    clips = [clip for clip in workspace.read(Clip) if clip.split == split]
    if not clips:
        splits = ", ".join(sorted({clip.split for clip in workspace.read(Clip)})) or "no clips at all"
        raise ValueError(f"{workspace.root} has no clips of split {split!r}; it has {splits}")
    return clips


def candidates_of_model(
    workspace: Workspace,
    clip_ids: Iterable[str],
    *,
    model: str | None = None,
    weights: str | None = None,
    with_latents: bool = False,
    model_setting: str = "model",
) -> pa.Table:
    """Return the candidates of these clips, without ground truth, as a table sorted by clip and id.

    `model` (a part's name) and `weights` (a fingerprint) narrow the choice; None takes all there are.
    `with_latents` leaves out imported sounds. Raises ValueError if candidates of several models are left,
    naming the setting that chooses one.
    """
    table = workspace.table(Candidate, where=among("clip_id", clip_ids))
    mask = pc.not_equal(table["model"], GROUND_TRUTH)
    for column, only in (("model", model), ("weights", weights)):
        if only is not None:
            mask = pc.and_(mask, pc.equal(table[column], only))
    if with_latents:
        mask = pc.and_(mask, pc.not_equal(table["shard"], ""))
    table = table.filter(mask)
    models = sorted(pc.unique(table["model"]).to_pylist())
    if len(models) > 1:  # their latents have nothing in common
        raise ValueError(
            f"candidates come from several models ({', '.join(models)}); name one in {model_setting}"
        )
    return table.sort_by([("clip_id", "ascending"), ("candidate_id", "ascending")]).combine_chunks()
