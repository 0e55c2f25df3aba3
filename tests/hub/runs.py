"""Finished runs of the world's model on drawn latents, for the tests of hub folders; made once a test run."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from foleypref.flow.convention import generator_of
from foleypref.models.backbones import Model
from foleypref.models.backbones.world import World
from foleypref.models.lora import LoraSettings
from foleypref.models.tools import sample_latents
from foleypref.networks.audioscore import AudioScoreNetwork
from foleypref.scoring.scorers.audioscore import AudioScore, Fitted
from foleypref.settings.parts import build
from foleypref.train import train
from foleypref.training.settings import TrainSettings
from foleypref.workspace.markdown import read_front_matter
from foleypref.workspace.records import Candidate, Clip, Feature, Pair
from foleypref.workspace.store import Workspace

NUM_CLIPS = 4


@functools.cache
def trained_workspace(folder: Path) -> Workspace:
    """A new workspace with two finished runs of the world's model: `full`, and `lora` with adapters."""
    workspace = Workspace(folder)
    world_pairs(workspace)
    fit_of(workspace, "world_sync/desync_s")
    train(workspace, settings_of("full"))
    train(workspace, settings_of("lora", use_peft=True, lora=LoraSettings(r=2)))
    return workspace


def world_pairs(workspace: Workspace) -> None:
    """Clips, candidates, conditions and automatic pairs of the world's shapes, all drawn."""
    generator = generator_of("test hub")
    shapes = {"scene": (9, 64), "motion": (100, 64), "text": (64,)}
    clips = [
        Clip(Clip.make_id(f"hub-{i}", 0.0, 4.0), f"{i}.mp4", "align", "", 0.0, 4.0, 25.0, 96, 96, True)
        for i in range(NUM_CLIPS)
    ]
    key = World().feature_key
    ids = [Feature.make_id(clip.clip_id, key) for clip in clips]
    rows = {name: torch.randn(NUM_CLIPS, *shape, generator=generator) for name, shape in shapes.items()}
    shard = workspace.write_rows("features", ids, rows)
    workspace.append(
        [*clips, *(Feature(f, c.clip_id, key, shard, i) for i, (f, c) in enumerate(zip(ids, clips)))]
    )
    for clip in clips:
        two = [Candidate.make_id(clip.clip_id, "world", "w", seed, "euler", 4, 1.0) for seed in (0, 1)]
        shard = workspace.write_rows("latents", two, {"audio": torch.randn(2, 100, 32, generator=generator)})
        workspace.append(
            [
                Candidate(c, clip.clip_id, "world", "w", i, "euler", 4, 1.0, shard, i)
                for i, c in enumerate(two)
            ]
        )
        pair_id = Pair.make_id(clip.clip_id, *two, "auto")
        workspace.append([Pair(pair_id, clip.clip_id, "", *two, 0.9, 0.1, 0.9, "auto")])


def fit_of(workspace: Workspace, *dimensions: str) -> AudioScore:
    """An AudioScore that reads these dimensions, and the report that says it made the pairs."""
    k = len(dimensions)
    zeros, ones = torch.zeros(k, dtype=torch.float64), torch.ones(k, dtype=torch.float64)
    network = AudioScoreNetwork(k, 4, generator_of("hub"))
    fitted = Fitted(tuple(dimensions), ("1",) * k, zeros, ones, network)
    score = AudioScore.of(fitted).save(workspace.root / "audioscore" / "audioscore.safetensors")
    report = {"audioscore": score.version, "settings": {"audioscore": "audioscore"}}
    (workspace.root / "pairs.json").write_text(json.dumps(report))
    return score


def settings_of(run_name: str, **changes: Any) -> TrainSettings:
    base: dict[str, Any] = {
        "model": "world", "run_name": run_name, "max_steps": 1, "per_device_train_batch_size": 1,
        "learning_rate": 1e-3, "warmup_steps": 0, "num_eval_pairs": 1, "tensorboard": False,
    }  # fmt: skip
    return TrainSettings(**base | changes)


def run_by_hand(root: Path, model: str, identity: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A finished run whose base is not on this disk, as far as saving looks at it."""
    folder = root / "elsewhere" / "runs" / "byhand"
    folder.mkdir(parents=True)
    duration = changes.pop("duration", 8.0)
    part = build("models", model, weights_folder="/secret/weights", duration=duration)
    settings = settings_of("byhand", **{"model": part, **changes})
    (folder / "settings.json").write_text(settings.model_dump_json())
    result = {"steps": 2, "identity": {"reference": "0123456789abcdef", **(identity or {})}, "logs": {}}
    (folder / "result.json").write_text(json.dumps(result))
    save_file({"a": torch.zeros(1)}, folder / "model.safetensors")
    return folder


def head_of(folder: Path) -> dict[str, Any]:
    return read_front_matter((folder / "README.md").read_text())


def changed(folder: Path, **changes: Any) -> Path:
    """Change config.json of a hub folder, and return the folder."""
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def sampled(model: Model) -> torch.Tensor:
    """Return sound latents that a model of the world samples under drawn conditions."""
    generator = generator_of("conditions")
    shapes = {"scene": (9, 64), "motion": (100, 64), "text": (64,)}
    conditions = {k: torch.randn(2, *shape, generator=generator) for k, shape in shapes.items()}
    with torch.inference_mode():
        return sample_latents(model, conditions, [3, 4], num_steps=3, guidance_scale=2.0)["audio"]
