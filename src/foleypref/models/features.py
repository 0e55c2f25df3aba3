"""Cache what a model computes once per clip, for sampling and training: conditions, and its media as latents.

Both are float16 rows in shards under a key that names all that they depend on.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from typing import Literal

import pyarrow.compute as pc
import torch

from foleypref.models.backbones import Media, Model
from foleypref.models.tools import read_clip_media
from foleypref.workspace.records import Clip, Feature
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import Stage

FEATURE_BATCH = 16  # clips
DECODERS = min(8, os.cpu_count() or 1)  # threads that decode clips


def ensure_features(
    workspace: Workspace,
    model: Model,
    clips: Sequence[Clip],
    batch_size: int = FEATURE_BATCH,
    shard: tuple[int, int] = (0, 1),
) -> dict[str, Feature]:
    """Cache the conditions of clips under the model's feature key; return them by clip id.

    A clip that cannot be read is a recorded failure and is missing from the result. `shard` (i, n) computes
    only every n-th batch.
    """
    return _ensure(workspace, model, clips, "features", batch_size=batch_size, shard=shard)


def ensure_clip_latents(
    workspace: Workspace,
    model: Model,
    clips: Sequence[Clip],
    batch_size: int = FEATURE_BATCH,
    shard: tuple[int, int] = (0, 1),
) -> dict[str, Feature]:
    """Cache the clips' own media as latents of the model, under `truth_key`; return them by clip id.

    A clip that cannot be read or has no sound is a recorded failure and is missing from the result.
    """
    return _ensure(workspace, model, clips, "truths", batch_size=batch_size, shard=shard)


def truth_key(model: Model) -> str:
    """Return the cache key of `ensure_clip_latents`."""
    return f"truths/{model.latent_key}"


def cached(workspace: Workspace, key: str) -> dict[str, Feature]:
    """Return the features cached under a key, by clip id."""
    return {f.item_id: f for f in workspace.read(Feature, pc.field("key") == key)}


def read_all(workspace: Workspace, model: Model, clips: Sequence[Clip], *, audio: bool = True) -> list[Media]:
    """Decode clips for a model, in parallel threads. Raises MediaError."""
    with ThreadPoolExecutor(DECODERS) as pool:  # decoding and resizing release Python's lock
        return list(pool.map(lambda clip: read_clip_media(workspace, clip, model, audio=audio), clips))


def _ensure(
    workspace: Workspace,
    model: Model,
    clips: Sequence[Clip],
    kind: Literal["features", "truths"],
    *,
    batch_size: int,
    shard: tuple[int, int],
) -> dict[str, Feature]:
    truths = kind == "truths"
    key, compute = (truth_key(model), model.encode_media) if truths else (model.feature_key, model.condition)

    def process(batch: list[Clip]) -> list[Feature]:
        with torch.no_grad():
            rows = compute(read_all(workspace, model, batch, audio=truths))
        tensors = {name: value.half() for name, value in rows.items()}
        return workspace.write_features(kind, key, [clip.clip_id for clip in batch], tensors)

    features = cached(workspace, key)
    if all(clip.clip_id in features for clip in clips):
        return features
    item_id = attrgetter("clip_id")
    stage = Stage(kind, clips, item_id, done=features, process=process, batch_size=batch_size)
    stage.run(workspace, shard)
    return cached(workspace, key)
