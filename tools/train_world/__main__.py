"""Make the world's committed weights: codecs, judges, oracles, condition features, then both flow models.

    python -m tools.train_world --workdir runs/world_training --out src/foleypref/world/weights

Each network is one step that is skipped when its file is there, so a stopped run goes on with the next.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import tyro
from tools.train_world import joint, joint_flow, parts
from tools.train_world.data import Clips, prepare
from torch import nn

from foleypref.media.files import atomic_path
from foleypref.networks.world_codec import WorldCodec
from foleypref.networks.world_events import EventFinder
from foleypref.networks.world_features import WorldFeatures
from foleypref.networks.world_towers import (
    AudioTextJudge,
    AudioVideoJudge,
    SecondTagger,
    SyncJudge,
    Tagger,
)
from foleypref.networks.world_video_codec import WorldVideoCodec
from foleypref.settings.parts import Settings
from foleypref.workspace.walk import progress_bar, say
from foleypref.world import CLASSES, VERSION
from foleypref.world.weights import load_weights, round_to_half, save_weights


class WorldTrainSettings(Settings):
    """How much of what; the defaults made the committed weights."""

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


def train_world(settings: WorldTrainSettings) -> None:
    """Train what is missing in `settings.out`. Clips and arrays go to `settings.workdir` (about 10 GB)."""
    s = settings
    log = parts.json_log(s.out / "training.jsonl")
    judge = prepare("judge", s.num_judge, s.workdir, s.seed)
    wild = prepare("wild", s.num_wild, s.workdir, s.seed)
    codec = WorldCodec()
    _make(s, "codec", codec, lambda: parts.train_codec([judge.waves, wild.waves], s.codec_steps, s.seed, log))
    sounds = [judge.waves, _through_codec(s, codec, judge, "judge")]
    semantic, text, sync = AudioVideoJudge(), AudioTextJudge(), SyncJudge()
    _make(
        s,
        "judge_semantic",
        semantic,
        lambda: parts.train_semantic(judge, sounds, s.judge_steps, s.seed, log),
    )
    _make(s, "judge_text", text, lambda: parts.train_text(judge, sounds, s.judge_steps, s.seed, log))
    _make(s, "judge_sync", sync, lambda: parts.train_sync(judge, sounds, s.sync_steps, s.seed, log))
    _make_tagger(s, judge, sounds, log)
    _make_oracle(s, codec, log)
    features = _make_features(s, semantic, sync, text, wild)
    _make_flow(s, codec, features, wild, log)
    make_joint_parts(s, codec, features, sync, wild.first(s.num_joint), log)


def make_joint_parts(
    s: WorldTrainSettings,
    codec: WorldCodec,
    features: WorldFeatures,
    sync: SyncJudge,
    wild: Clips,
    log: parts.Log,
) -> None:
    """The joint model's video codec and flow, and the oracle that finds events in a picture."""
    video = WorldVideoCodec()
    steps, checkpoint = s.video_codec_steps, s.workdir / "video_codec.checkpoint.pt"
    _make(s, "video_codec", video, lambda: joint.train_video_codec(wild, steps, s.seed, log, checkpoint))
    _make_events(s, video, log)
    _make_joint(s, codec, video, features, sync, wild, log)


def _make(s: WorldTrainSettings, name: str, network: nn.Module, train: Callable[[], nn.Module]) -> None:
    """Load `name` into `network`, or train and save it first; either way it equals its file."""
    path = s.out / f"{name}.safetensors"
    if not path.exists():
        say(f"training {name}")
        trained = train()
        round_to_half(trained)
        save_weights(path, trained.state_dict(), _story(s))
    network.load_state_dict(load_weights(path)[0])
    network.eval().requires_grad_(False)


def _story(s: WorldTrainSettings) -> dict[str, object]:
    return {"settings": s.model_dump(mode="json", exclude={"workdir", "out"}), "world_version": VERSION}


def _make_tagger(s: WorldTrainSettings, clips: Clips, sounds: list[np.ndarray], log: parts.Log) -> None:
    path = s.out / "judge_tagger.safetensors"
    if path.exists():
        return
    say("training judge_tagger")
    torch.manual_seed(s.seed)
    tagger = Tagger(len(CLASSES))
    parts.train_tagger(tagger, clips, sounds, s.judge_steps, s.seed, "judge_tagger", log)
    round_to_half(tagger)
    num = min(2000, len(clips))
    batches = np.array_split(np.arange(num), min(20, num))
    with torch.no_grad():  # the frozen marginal q of the per-sample inception score
        p = torch.cat([tagger(parts.rows_of(clips.waves, index))[0].softmax(1) for index in batches])
    save_weights(path, {**tagger.state_dict(), "extra.marginal": p.mean(0)}, _story(s))


def _make_oracle(s: WorldTrainSettings, codec: WorldCodec, log: parts.Log) -> None:
    path = s.out / "oracle_tagger.safetensors"
    if path.exists():
        return
    say("training oracle_tagger")
    clips = prepare("oracle", s.num_oracle, s.workdir, s.seed + 1)
    sounds = [clips.waves, _through_codec(s, codec, clips, "oracle")]
    torch.manual_seed(s.seed + 1)
    tagger = SecondTagger(len(CLASSES))
    parts.train_tagger(tagger, clips, sounds, s.judge_steps, s.seed + 1, "oracle_tagger", log)
    save_weights(path, tagger.state_dict(), _story(s))


def _make_features(
    s: WorldTrainSettings, semantic: AudioVideoJudge, sync: SyncJudge, text: AudioTextJudge, wild: Clips
) -> WorldFeatures:
    """The judges' encoders with statistics of their outputs on wild clips: the condition network."""
    path = s.out / "features.safetensors"
    features = WorldFeatures()
    if not path.exists():
        features.scene.load_state_dict(semantic.scene.state_dict())
        features.motion.load_state_dict(sync.motion.state_dict())
        features.text.load_state_dict(text.text.state_dict())
        found = conditions_of(features, wild, np.arange(min(1000, len(wild))))
        for name, value in found.items():
            flat = value.float().flatten(0, -2)
            getattr(features, f"{name}_mean").copy_(flat.mean(0))
            getattr(features, f"{name}_std").copy_(flat.std(0).clamp(min=1e-3))
        save_weights(path, features.state_dict(), _story(s))
    features.load_state_dict(load_weights(path)[0])
    return features.eval().requires_grad_(False)


def conditions_of(features: WorldFeatures, clips: Clips, index: np.ndarray) -> dict[str, torch.Tensor]:
    """Conditions of clips as they are cached: float16."""

    def condition(part: np.ndarray) -> dict[str, torch.Tensor]:
        return features(parts.rows_of(clips.frames, part), [clips.rows[i]["prompt"] for i in part])

    return parts.rows_as_halves("features", index, 32, condition)


def _make_flow(
    s: WorldTrainSettings, codec: WorldCodec, features: WorldFeatures, wild: Clips, log: parts.Log
) -> None:
    path = s.out / "flow.safetensors"
    if path.exists():
        return
    say("training flow")
    index = np.arange(len(wild))
    conditions = conditions_of(features, wild, index)
    with torch.inference_mode():
        split = np.array_split(index, max(1, len(index) // 64))
        latents = torch.cat([codec.encode(parts.rows_of(wild.waves, part)).half() for part in split]).clone()
    network, settings = parts.train_flow(latents, conditions, s.flow_steps, s.seed, log)
    save_weights(path, network.state_dict(), {"network": settings, **_story(s)})


def _make_events(s: WorldTrainSettings, video: WorldVideoCodec, log: parts.Log) -> None:
    """On first clips of the oracle's tagger, which no judge has seen, as they are and through the codec."""
    if (s.out / "oracle_events.safetensors").exists():
        return
    clips = prepare("oracle", s.num_oracle, s.workdir, s.seed + 1).first(s.num_events)
    path = s.workdir / "arrays" / f"oracle-{len(clips)}.video_codec.npy"
    if not path.exists():
        joint.write_through_codec(video, clips, path, s.seed + 1)
    pictures = [clips.frames, np.load(path, mmap_mode="r")]
    _make(
        s,
        "oracle_events",
        EventFinder(),
        lambda: joint.train_events(clips, pictures, s.events_steps, s.seed + 1, log),
    )


def _make_joint(
    s: WorldTrainSettings,
    codec: WorldCodec,
    video: WorldVideoCodec,
    features: WorldFeatures,
    sync: SyncJudge,
    wild: Clips,
    log: parts.Log,
) -> None:
    path = s.out / "joint.safetensors"
    if path.exists():
        return
    say("training joint")
    latents = joint.latents_of(codec, video, wild)
    with torch.inference_mode():
        text = features.captions([row["prompt"] for row in wild.rows]).clone()
    hints = joint_flow.sync_features(sync, wild)
    checkpoint = s.workdir / "joint.checkpoint.pt"
    network, settings = joint_flow.train_joint(latents, text, hints, s.joint_steps, s.seed, log, checkpoint)
    save_weights(path, network.state_dict(), {"network": settings, **_story(s)})


def _through_codec(s: WorldTrainSettings, codec: WorldCodec, clips: Clips, name: str) -> np.ndarray:
    """The same sounds after encode and decode, so that judges forgive what every candidate carries."""
    path = s.workdir / "arrays" / f"{name}-{len(clips)}.codec.npy"
    if not path.exists():
        out = np.zeros(clips.waves.shape, np.float16)
        with torch.inference_mode(), progress_bar("codec", len(clips)) as advance:
            for part in np.array_split(np.arange(len(clips)), max(1, len(clips) // 16)):
                out[part] = codec.decode(codec.encode(parts.rows_of(clips.waves, part))).half().numpy()
                advance(len(part))
        with atomic_path(path, suffix=path.suffix) as temporary:
            np.save(temporary, out)
    return np.load(path, mmap_mode="r")


if __name__ == "__main__":
    train_world(tyro.cli(WorldTrainSettings, prog="python -m tools.train_world"))
