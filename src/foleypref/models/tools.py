"""Functions for any model: reading a clip, views and frozen copies, sampling from noise.

The contract is `foleypref.models.backbones.Model`; nothing here depends on a particular model.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from foleypref.flow.convention import Latents, VelocityFn, guidance_passes, guide, noise_like_rows
from foleypref.flow.solvers import COUPLED, AnySolver, solve
from foleypref.media.clip import MediaError, held
from foleypref.models.backbones import Conditions, Media, Model
from foleypref.models.sharding import unshard
from foleypref.workspace.paths import WorkspacePaths
from foleypref.workspace.records import Clip

SHORT_S = 0.5  # a picture may end this much before the model's length; its last frame is then held

M = TypeVar("M", bound=Model)


def read_clip_media(workspace: WorkspacePaths, clip: Clip, model: Model, *, audio: bool = True) -> Media:
    """Decode a clip into the streams that a model takes, without its sound if `audio` is False.

    Raises MediaError, also if the picture is too short.
    """
    path = workspace.clip_file(clip)
    media = model.read(path, clip.start_s, clip.prompt, audio=audio and clip.has_audio)
    seconds = model.spec.clip_seconds
    if media.seconds is not None and media.seconds < seconds - SHORT_S:
        raise MediaError(
            f"{clip.path}: {media.seconds:.2f} s of picture from {clip.start_s:g} s on, the model takes "
            f"{seconds:g} s; set its duration lower or leave the clip out"
        )
    return media


def held_or_black(frames: np.ndarray | tuple[()], num: int, side: int) -> np.ndarray:
    """Return exactly `num` frames of (T, side, side, 3) uint8: the last one is held, no frames are black."""
    return held(np.asarray(frames), num) if len(frames) else np.zeros((num, side, side, 3), np.uint8)


def with_weights(model: M, weights: str | Path) -> M:
    """Return the model with tuned weights (with earlier adapters merged in), or a folder of adapters."""
    if Path(weights).is_dir():
        return model.with_settings(adapter=str(weights))
    bare = {"adapter": ""} if "adapter" in type(model).model_fields else {}
    return model.with_settings(weights=str(weights), **bare)


def with_network(model: M, network: nn.Module) -> M:
    """Return a view of `model` with another flow network; autoencoder and settings are shared."""
    view = copy.copy(model)
    view.set_network(network)
    return view


def unwrapped(network: nn.Module) -> nn.Module:
    """Return the network inside wrappers (DDP) that keep it as their `module`."""
    while isinstance(inner := getattr(network, "module", None), nn.Module):
        network = inner
    return network


def frozen_copy(model: M) -> M:
    """Return the reference: a view of `model` with a frozen copy of its present flow network.

    Call it before the network is wrapped (DDP), because a wrapper would be copied too.
    """
    return with_network(model, copy.deepcopy(model.network).requires_grad_(False).eval())


def fingerprint_of(network: nn.Module) -> str:
    """Hash a network's parameters and buffers, names and bytes: 16 hex characters."""
    state = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        state.update(unshard(tensor.detach()).cpu().reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()[:16]


def loaded_fingerprint(model: Model) -> str:
    """Return the fingerprint of a model that is not loaded, by loading a copy and dropping it."""
    return model.model_copy().load().fingerprint


def sample_latents(
    model: Model,
    conditions: Conditions,
    seeds: Sequence[int],
    *,
    num_steps: int,
    guidance_scale: float,
    solver: AnySolver = "euler",
    negative: Conditions | None = None,
) -> Latents:
    """Integrate the guided flow from seeded noise: latents (B, L, D).

    Row i's noise depends only on seeds[i]. `negative` takes the place of the null conditions. Up to a
    guidance scale of 1 only the conditional flow is followed.
    """
    if solver in COUPLED and len(seeds) > 1:
        sample = partial(
            sample_latents, model, num_steps=num_steps, guidance_scale=guidance_scale, solver=solver
        )
        rows = [
            sample(_row(conditions, row), [seed], negative=negative and _row(negative, row))
            for row, seed in enumerate(seeds)
        ]
        return {key: torch.cat([row[key] for row in rows]) for key in rows[0]}
    device = next(iter(conditions.values())).device
    x0 = {key: noise.to(device) for key, noise in noise_like_rows(model.spec.latents, seeds).items()}
    velocity = guided_velocity(model, conditions, guidance_scale, prepare=True, negative=negative)
    return solve(velocity, x0, num_steps, solver, model.times(num_steps))


def _row(conditions: Conditions, row: int) -> Conditions:
    return {key: value[row : row + 1] for key, value in conditions.items()}


def guided_velocity(
    model: Model,
    conditions: Conditions,
    guidance_scale: float,
    *,
    prepare: bool = False,
    negative: Conditions | None = None,
) -> VelocityFn:
    """Return v(x, t) under classifier-free guidance, both halves in one forward of 2 B rows.

    Up to a scale of 1 only the conditional half runs. `prepare` works the conditions out once for many steps;
    without it they carry a gradient. `negative` takes the place of the null conditions.
    """
    both = conditions
    if guidance_passes(guidance_scale) == 2:
        null = model.null(conditions) if negative is None else negative
        both = {key: torch.cat([conditions[key], null[key]]) for key in conditions}
    both = model.prepare(both) if prepare else both
    if guidance_passes(guidance_scale) == 1:
        return lambda x, t: model.velocity(x, t, both)

    def velocity(x: Latents, t: Tensor) -> Latents:
        v, n = model.velocity(x, t, both), len(t)
        return guide({k: v[k][:n] for k in v}, {k: v[k][n:] for k in v}, guidance_scale)

    return velocity
