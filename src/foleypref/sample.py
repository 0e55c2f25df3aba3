"""Stage 2, sample: a model × clips × seeds -> candidates. The clips' conditions are cached on the way.

A candidate's noise is a function of its seed and clip. So one candidate can be made again without the others,
and the base and tuned models start from the same noise on the same clip.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from pydantic import Field

from foleypref.flow.solvers import AnySolver
from foleypref.models.backbones import ModelPart
from foleypref.models.features import FEATURE_BATCH, ensure_features
from foleypref.models.tools import sample_latents
from foleypref.workspace.engines import MapSettings, run_map
from foleypref.workspace.records import Candidate, Feature
from foleypref.workspace.selection import clips_of_split
from foleypref.workspace.store import Shard, Workspace
from foleypref.workspace.walk import Stage, StageCount


class SampleSettings(MapSettings):
    """How candidates are made: `num_candidates` seeds from `first_seed` on, for every clip of `split`."""

    model: ModelPart = Field("world", validate_default=True)
    split: str = "align"
    num_clips: int | None = None  # only the first ones by id; None is all
    num_candidates: int = 5
    first_seed: int = 0
    solver: AnySolver = "euler"
    num_steps: int = 25
    guidance_scale: float = 4.5
    batch_size: int = 40


def sample(workspace: Workspace, settings: SampleSettings) -> StageCount:
    """Make every candidate that the settings ask for and that is not there yet."""
    return run_map(SampleWork, workspace, settings)


class SampleWork:
    """The stage with its model loaded and its plan made, ready to do one shard after another.

    Shards take whole clips, in blocks that fill both batches of features and batches of candidates, so every
    batch is the same as in one process.
    """

    def __init__(self, workspace: Workspace, settings: SampleSettings) -> None:
        self.workspace, self.settings = workspace, settings
        self.model = settings.model.load(settings.device)
        self.model.network.eval()
        self.clips = clips_of_split(workspace, settings.split)[: settings.num_clips]
        seeds = range(settings.first_seed, settings.first_seed + settings.num_candidates)
        name, weights = self.model.part_name(), self.model.fingerprint  # asked once: it may look at files
        self.flow = settings.model_dump(include={"solver", "num_steps", "guidance_scale"})
        self.plan = [
            Candidate.make(clip.clip_id, name, weights, seed=seed, **self.flow)
            for clip in self.clips
            for seed in seeds
        ]

    def __call__(self, shard: Shard) -> StageCount:
        """Make the missing candidates of shard i of n."""
        settings = self.settings
        candidates_per_block = math.lcm(FEATURE_BATCH * settings.num_candidates, settings.batch_size)
        clips_per_block = candidates_per_block // settings.num_candidates
        index, num = shard
        clips = [clip for k, clip in enumerate(self.clips) if k // clips_per_block % num == index]
        with self.workspace.lock("sample", shard):
            features = ensure_features(self.workspace, self.model, clips)
            unreadable = {clip.clip_id for clip in clips} - features.keys()
            stage = Stage(
                name="sample",
                plan=self.plan,
                item_id=lambda candidate: candidate.candidate_id,
                done=self.workspace.ids(Candidate),
                process=lambda batch: self._sample(batch, features),
                batch_size=settings.batch_size,
                block=candidates_per_block // settings.batch_size,
                unable={c.candidate_id for c in self.plan if c.clip_id in unreadable},
            )
            return stage.run(self.workspace, shard)

    def _sample(self, batch: list[Candidate], features: dict[str, Feature]) -> list[Candidate]:
        """Sample a batch, write its latents, and return the candidates with the place of theirs."""
        rows = self.workspace.rows([features[candidate.clip_id] for candidate in batch])
        conditions = {key: value.float().to(self.settings.device) for key, value in rows.items()}
        seeds = [candidate.noise_seed for candidate in batch]
        with torch.inference_mode():
            latents = sample_latents(self.model, conditions, seeds, **self.flow)
        ids = [candidate.candidate_id for candidate in batch]
        tensors = {key: value.half() for key, value in latents.items()}
        shard = self.workspace.write_rows("latents", ids, tensors)
        return [replace(candidate, shard=shard, row=row) for row, candidate in enumerate(batch)]
