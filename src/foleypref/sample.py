"""Stage 2, sample: a model × clips × seeds -> candidates. Conditions are cached on the way.

Each candidate's noise is a function of (seed, clip), so it can be made again alone, and base and tuned models
meet the same noise on the same clip.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field

from foleypref.flow.solvers import AnySolver
from foleypref.models.backbones import Model, ModelPart
from foleypref.models.features import FEATURE_BATCH, ensure_features
from foleypref.models.tools import sample_latents
from foleypref.settings.parts import Settings
from foleypref.workspace.engines import run_map
from foleypref.workspace.records import Candidate, Feature
from foleypref.workspace.selection import clips_of_split
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import StageCount, run_batches


class SampleSettings(Settings):
    """How candidates are made. `num_candidates` seeds from `first_seed` on, for every clip of `split`."""

    model: ModelPart = Field("world", validate_default=True)
    split: str = "align"
    num_clips: int | None = None  # the first so many by id; None is all
    num_candidates: int = 5
    first_seed: int = 0
    solver: AnySolver = "euler"
    num_steps: int = 25
    guidance_scale: float = 4.5
    batch_size: int = 40
    num_workers: int = Field(1, ge=1)  # processes on this machine; with several GPUs each gets one
    shard: str = ""  # "3/8": this process does the fourth of eight shares, others the rest
    engine: Literal["processes", "ray"] = "processes"  # ray: `num_workers` actors of a Ray cluster
    device: str = "cpu"


def sample(workspace: Workspace, settings: SampleSettings) -> StageCount:
    """Make every candidate the settings ask for that is not there yet."""
    return run_map(SampleWork, workspace, settings)


class SampleWork:
    """`sample`, share by share: the model is loaded and the plan made once.

    Shares are of whole clips, as many at a time as fill both a batch of features and of candidates, so that
    every batch is what it would be in one process.
    """

    def __init__(self, workspace: Workspace, settings: SampleSettings) -> None:
        self.workspace, self.settings = workspace, settings
        self.model = settings.model.load(settings.device)
        self.model.network.eval()
        self.clips = clips_of_split(workspace, settings.split)[: settings.num_clips]
        seeds = range(settings.first_seed, settings.first_seed + settings.num_candidates)
        name, weights = self.model.part_name(), self.model.fingerprint  # asked once: it may look at files
        self.plan = [
            Candidate.make(
                clip.clip_id,
                name,
                weights,
                seed=seed,
                solver=settings.solver,
                num_steps=settings.num_steps,
                guidance_scale=settings.guidance_scale,
            )
            for clip in self.clips
            for seed in seeds
        ]

    def __call__(self, shard: tuple[int, int]) -> StageCount:
        """Make the missing candidates of shard i of n."""
        s = self.settings
        candidates = math.lcm(FEATURE_BATCH * s.num_candidates, s.batch_size)  # in a block
        index, num = shard
        clips_a_block = candidates // s.num_candidates
        mine = [clip for k, clip in enumerate(self.clips) if k // clips_a_block % num == index]
        with self.workspace.lock("sample", shard):
            features = ensure_features(self.workspace, self.model, mine)
            blind = {clip.clip_id for clip in mine} - features.keys()
            return run_batches(
                self.workspace,
                "sample",
                self.plan,
                lambda candidate: candidate.candidate_id,
                self.workspace.ids(Candidate),
                lambda batch: _sample_batch(self.workspace, self.model, s, features, batch),
                s.batch_size,
                shard,
                candidates // s.batch_size,
                {c.candidate_id for c in self.plan if c.clip_id in blind},
            )


def _sample_batch(
    workspace: Workspace,
    model: Model,
    settings: SampleSettings,
    features: dict[str, Feature],
    batch: list[Candidate],
) -> list[Candidate]:
    rows = workspace.rows([features[c.clip_id] for c in batch])
    conditions = {key: value.float().to(settings.device) for key, value in rows.items()}
    with torch.inference_mode():
        latents = sample_latents(
            model,
            conditions,
            [candidate.noise_seed for candidate in batch],
            num_steps=settings.num_steps,
            guidance_scale=settings.guidance_scale,
            solver=settings.solver,
        )
    ids = [c.candidate_id for c in batch]
    shard = workspace.write_rows("latents", ids, {key: value.half() for key, value in latents.items()})
    return [replace(candidate, shard=shard, row=row) for row, candidate in enumerate(batch)]
