"""Make the world's committed weights: codecs, judges, oracles, condition features, then both flow models.

    python -m tools.train_world --workdir runs/world_training --out src/foleypref/world/weights

A network whose file is there is not trained again, so the same command resumes a stopped run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import tyro
from tools.train_world import joint, joint_flow, parts
from tools.train_world.data import Clips, batches, prepare, rows_as_halves, rows_of, save_array
from tools.train_world.fitting import Fit, json_log
from torch import Tensor, nn

from foleypref.networks.world_codec import WorldCodec
from foleypref.networks.world_towers import (
    AudioTextJudge,
    AudioVideoJudge,
    SecondTagger,
    SyncJudge,
    Tagger,
    WorldFeatures,
)
from foleypref.networks.world_video_codec import WorldVideoCodec
from foleypref.settings.parts import Settings
from foleypref.workspace.walk import progress_bar, say
from foleypref.world import CLASSES, VERSION
from foleypref.world.weights import load_weights, round_to_half, save_weights

N = TypeVar("N", bound=nn.Module)


class WorldTrainSettings(Settings):
    """How many clips and steps each network learns from; the defaults made the committed weights."""

    workdir: Path = Path("runs/world_training")
    out: Path = Path("runs/world_weights")
    seed: int = 0
    num_wild: int = 5000
    num_judge: int = 3000
    num_oracle: int = 1500
    codec_steps: int = 1600
    judge_steps: int = 900
    sync_steps: int = 1200
    flow_steps: int = 3200
    num_joint: int = 2800
    num_events: int = 1000
    video_codec_steps: int = 5000
    events_steps: int = 800
    joint_steps: int = 20_000


class WorldTraining:
    """The networks' files in `settings.out`; a network whose file is there is loaded, not trained."""

    def __init__(self, settings: WorldTrainSettings) -> None:
        self.settings = settings
        self.log = json_log(settings.out / "training.jsonl")

    def path(self, name: str) -> Path:
        """Return the path of a network's file."""
        return self.settings.out / f"{name}.safetensors"

    def is_missing(self, name: str) -> bool:
        """Return True, and say so, if the network called `name` has yet to be trained."""
        if self.path(name).exists():
            return False
        say(f"training {name}")
        return True

    def fit(self, steps: int, *, oracle: bool = False, checkpoint: str = "") -> Fit:
        """Return how long a network learns; oracles have another seed than everything else."""
        path = self.settings.workdir / f"{checkpoint}.checkpoint.pt" if checkpoint else None
        return Fit(steps, self.settings.seed + oracle, self.log, path)

    def save(self, name: str, state: dict[str, Tensor], metadata: dict[str, Any] | None = None) -> None:
        """Write a network's file with the settings and the version of the world that it learned from."""
        settings = self.settings.model_dump(mode="json", exclude={"workdir", "out"})
        story = {"settings": settings, "world_version": VERSION}
        save_weights(self.path(name), state, {**(metadata or {}), **story})

    def network(self, name: str, network: N, train: Callable[[], nn.Module]) -> N:
        """Return `network` with the weights of its file, which `train` makes if it is missing."""
        if self.is_missing(name):
            self.save(name, train().state_dict())
        network.load_state_dict(load_weights(self.path(name))[0])
        return network.eval().requires_grad_(False)

    def through_codec(self, codec: WorldCodec, clips: Clips, split: str) -> np.ndarray:
        """Return the sounds after encoding and decoding: judges must forgive what every candidate has."""
        path = self.settings.workdir / "arrays" / f"{split}-{len(clips)}.codec.npy"
        if not path.exists():
            out = np.zeros(clips.waves.shape, np.float16)
            with torch.inference_mode(), progress_bar("codec", len(clips)) as advance:
                for index in batches(len(clips), 16):
                    out[index] = codec.decode(codec.encode(rows_of(clips.waves, index))).half().numpy()
                    advance(len(index))
            save_array(path, out)
        return np.load(path, mmap_mode="r")


class Judges(NamedTuple):
    """The judges whose encoders and features the flow models learn from."""

    semantic: AudioVideoJudge
    text: AudioTextJudge
    sync: SyncJudge


def train_world(settings: WorldTrainSettings) -> None:
    """Train what is missing in `settings.out`. Clips and arrays go to `settings.workdir` (about 10 GB)."""
    s, training = settings, WorldTraining(settings)
    clips = prepare("judge", s.num_judge, s.workdir, s.seed)
    wild = prepare("wild", s.num_wild, s.workdir, s.seed)
    codec = training.network(
        "codec",
        WorldCodec(),
        lambda: parts.train_codec([clips.waves, wild.waves], training.fit(s.codec_steps)),
    )
    judges = _train_judges(training, codec, clips)
    _train_oracle_tagger(training, codec)
    features = _make_features(training, judges, wild)
    _train_flow(training, codec, features, wild)
    wild = wild.first(s.num_joint)
    video = training.network(
        "video_codec",
        WorldVideoCodec(),
        lambda: joint.train_video_codec(wild, training.fit(s.video_codec_steps, checkpoint="video_codec")),
    )
    _train_events(training, video)
    if training.is_missing("joint"):
        latents = joint.latents_of(codec, video, wild)
        with torch.inference_mode():
            text = features.captions([row["prompt"] for row in wild.rows]).clone()
        hints = joint_flow.sync_features(judges.sync, wild)
        fit = training.fit(s.joint_steps, checkpoint="joint")
        network, sizes = joint_flow.train_joint(latents, text, hints, fit)
        training.save("joint", network.state_dict(), {"network": sizes})


def _train_judges(training: WorldTraining, codec: WorldCodec, clips: Clips) -> Judges:
    s, network = training.settings, training.network
    sounds = [clips.waves, training.through_codec(codec, clips, "judge")]
    fit = training.fit(s.judge_steps)
    judges = Judges(
        network("judge_semantic", AudioVideoJudge(), lambda: parts.train_semantic(clips, sounds, fit)),
        network("judge_text", AudioTextJudge(), lambda: parts.train_text(clips, sounds, fit)),
        network(
            "judge_sync", SyncJudge(), lambda: parts.train_sync(clips, sounds, training.fit(s.sync_steps))
        ),
    )
    if training.is_missing("judge_tagger"):
        torch.manual_seed(s.seed)
        tagger = Tagger(len(CLASSES))
        parts.train_tagger(tagger, clips, sounds, "judge_tagger", fit)
        round_to_half(tagger)  # so that the marginal is that of the saved network
        num = min(2000, len(clips))
        with torch.no_grad():  # the frozen marginal q of the per-sample Inception Score
            indices = np.array_split(np.arange(num), min(20, num))
            p = torch.cat([tagger(rows_of(clips.waves, index))[0].softmax(1) for index in indices])
        training.save("judge_tagger", {**tagger.state_dict(), "extra.marginal": p.mean(0)})
    return judges


def _train_oracle_tagger(training: WorldTraining, codec: WorldCodec) -> None:
    if training.is_missing("oracle_tagger"):
        clips = _oracle_clips(training)
        sounds = [clips.waves, training.through_codec(codec, clips, "oracle")]
        fit = training.fit(training.settings.judge_steps, oracle=True)
        torch.manual_seed(fit.seed)
        tagger = SecondTagger(len(CLASSES))
        parts.train_tagger(tagger, clips, sounds, "oracle_tagger", fit)
        training.save("oracle_tagger", tagger.state_dict())


def _oracle_clips(training: WorldTraining) -> Clips:
    """Return clips of a split and a seed that no judge has seen."""
    s = training.settings
    return prepare("oracle", s.num_oracle, s.workdir, s.seed + 1)


def _make_features(training: WorldTraining, judges: Judges, wild: Clips) -> WorldFeatures:
    """Return the condition network: the judges' encoders, with statistics of their outputs on wild clips."""
    features = WorldFeatures()
    if not training.path("features").exists():
        features.scene.load_state_dict(judges.semantic.scene.state_dict())
        features.motion.load_state_dict(judges.sync.motion.state_dict())
        features.text.load_state_dict(judges.text.text.state_dict())
        for name, value in conditions_of(features, wild.first(1000)).items():
            flat = value.float().flatten(0, -2)
            getattr(features, f"{name}_mean").copy_(flat.mean(0))
            getattr(features, f"{name}_std").copy_(flat.std(0).clamp(min=1e-3))
        training.save("features", features.state_dict())
    features.load_state_dict(load_weights(training.path("features"))[0])
    return features.eval().requires_grad_(False)


def conditions_of(features: WorldFeatures, clips: Clips) -> dict[str, Tensor]:
    """Return the clips' conditions in float16, as they are cached."""

    def conditions(index: np.ndarray) -> dict[str, Tensor]:
        return features(rows_of(clips.frames, index), [clips.rows[i]["prompt"] for i in index])

    return rows_as_halves("features", len(clips), 32, conditions)


def _train_flow(training: WorldTraining, codec: WorldCodec, features: WorldFeatures, wild: Clips) -> None:
    if training.is_missing("flow"):
        conditions = conditions_of(features, wild)
        with torch.inference_mode():
            encoded = [codec.encode(rows_of(wild.waves, index)).half() for index in batches(len(wild), 64)]
            latents = torch.cat(encoded).clone()
        network, sizes = parts.train_flow(latents, conditions, training.fit(training.settings.flow_steps))
        training.save("flow", network.state_dict(), {"network": sizes})


def _train_events(training: WorldTraining, video: WorldVideoCodec) -> None:
    """Train the oracle that finds events in pictures, on clips as they are and through the video codec."""
    s = training.settings
    if training.is_missing("oracle_events"):
        clips = _oracle_clips(training).first(s.num_events)
        path = s.workdir / "arrays" / f"oracle-{len(clips)}.video_codec.npy"
        fit = training.fit(s.events_steps, oracle=True)
        if not path.exists():
            joint.write_through_codec(video, clips, path, fit.seed)
        pictures = [clips.frames, np.load(path, mmap_mode="r")]
        training.save("oracle_events", joint.train_events(clips, pictures, fit).state_dict())


if __name__ == "__main__":
    train_world(tyro.cli(WorldTrainSettings, prog="python -m tools.train_world"))
