"""What a model makes of clips once, for sampling and training alike: conditions, and their media as latents.

Both are rows of float16 in shards, found again under a key that names whatever they depend on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow.compute as pc
import torch
from torch import Tensor

from foleypref.models.backbones import Media, Model
from foleypref.models.tools import read_clip_media
from foleypref.workspace.records import Clip, Feature
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import Stage

FEATURE_BATCH = 16  # clips
DECODERS = min(8, os.cpu_count() or 1)  # clips decoded side by side


def ensure_features(
    workspace: Workspace,
    model: Model,
    clips: Sequence[Clip],
    batch_size: int = FEATURE_BATCH,
    shard: tuple[int, int] = (0, 1),
) -> dict[str, Feature]:
    """Cache the conditions of clips under the model's feature key; returns them by clip id.

    A clip that cannot be read is a recorded failure and is missing from the result. Shard i of n makes every
    n-th batch alone.
    """

    def rows(batch: list[Clip]) -> dict[str, Tensor]:
        return model.condition(read_all(workspace, model, batch, audio=False))

    return _ensure(workspace, "features", model.feature_key, clips, rows, batch_size, shard)


def ensure_truths(
    workspace: Workspace,
    model: Model,
    clips: Sequence[Clip],
    batch_size: int = FEATURE_BATCH,
    shard: tuple[int, int] = (0, 1),
) -> dict[str, Feature]:
    """Cache the clips' own media as latents of the model, under its latent key; returns them by clip id.

    A clip that cannot be read or has no sound is a recorded failure and is missing from the result.
    """

    def rows(batch: list[Clip]) -> dict[str, Tensor]:
        return model.encode_media(read_all(workspace, model, batch))

    return _ensure(workspace, "truths", truth_key(model), clips, rows, batch_size, shard)


def truth_key(model: Model) -> str:
    """What the features of `ensure_truths` are kept under."""
    return f"truths/{model.latent_key}"


def cached(workspace: Workspace, key: str) -> dict[str, Feature]:
    """What is there under a key, by the id of clips."""
    return {f.item_id: f for f in workspace.read(Feature, pc.field("key") == key)}


def read_all(workspace: Workspace, model: Model, clips: Sequence[Clip], *, audio: bool = True) -> list[Media]:
    """Clips as a model wants them, decoded side by side. Raises MediaError."""
    with ThreadPoolExecutor(DECODERS) as pool:  # decoding and resizing leave Python's lock alone
        return list(pool.map(lambda clip: read_clip_media(workspace.root, clip, model, audio=audio), clips))


def _ensure(
    workspace: Workspace,
    kind: str,
    key: str,
    clips: Sequence[Clip],
    rows: Callable[[list[Clip]], dict[str, Tensor]],
    batch_size: int,
    shard: tuple[int, int],
) -> dict[str, Feature]:
    def process(batch: list[Clip]) -> list[Feature]:
        with torch.no_grad():
            found = {name: value.half() for name, value in rows(batch).items()}
        ids = [Feature.make_id(clip.clip_id, key) for clip in batch]
        place = workspace.write_rows(kind, ids, found)
        return [Feature(ids[row], clip.clip_id, key, place, row) for row, clip in enumerate(batch)]

    found = cached(workspace, key)
    if all(clip.clip_id in found for clip in clips):
        return found
    stage = Stage(
        name=kind,
        plan=clips,
        item_id=lambda clip: clip.clip_id,
        done=found,
        process=process,
        batch_size=batch_size,
    )
    stage.run(workspace, shard)
    return cached(workspace, key)
