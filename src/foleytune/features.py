"""Cached conditions: what a model makes of a clip's picture and prompt, once for sampling and training."""

Both are rows of float16 in shards, found again under a key that names whatever they depend on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from foleytune.models import Media, Model, read_clip_media
from foleytune.records import Clip, Feature
from foleytune.stages import run_batches
from foleytune.store import Workspace

DECODERS = min(8, os.cpu_count() or 1)  # clips decoded side by side


def ensure_features(
    workspace: Workspace,
    model: Model,
    clips: Sequence[Clip],
    batch_size: int = 16,
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
    batch_size: int = 16,
    shard: tuple[int, int] = (0, 1),
) -> dict[str, Feature]:
    """Cache the clips' own media as latents of the model, under its latent key; returns them by clip id.

    A clip that cannot be read or has no sound is a recorded failure and is missing from the result.
    """

    def rows(batch: list[Clip]) -> dict[str, Tensor]:
        return model.encode_media(read_all(workspace, model, batch))

    return _ensure(workspace, "truths", model.latent_key, clips, rows, batch_size, shard)


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
    named = key if kind == "features" else f"{kind}/{key}"

    def process(batch: list[Clip]) -> list[Feature]:
        with torch.no_grad():
            found = {name: value.half() for name, value in rows(batch).items()}
        ids = [Feature.make_id(clip.clip_id, named) for clip in batch]
        place = workspace.write_rows(kind, ids, found)
        return [Feature(ids[row], clip.clip_id, named, place, row) for row, clip in enumerate(batch)]

    known = {f.item_id for f in workspace.read(Feature) if f.key == named}
    if any(clip.clip_id not in known for clip in clips):
        run_batches(workspace, kind, clips, lambda clip: clip.clip_id, known, process, batch_size, shard)
    return {f.item_id: f for f in workspace.read(Feature) if f.key == named}
