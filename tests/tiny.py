"""A flow model of a few hundred weights, and a workspace filled with fake pairs for it.

`python -m tests.tiny ROOT SETTINGS.json` trains in a process of its own, under `torchrun` in several;
KILL_AT_STEP=n or KILL_AT_SAVE=n in its environment make it kill itself there, as `kill -9` would.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from pydantic import PrivateAttr
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from foleypref.flow.convention import Latents, generator_of, repeated
from foleypref.media.clip import MediaError
from foleypref.models.backbones import Conditions, Media, Model, ModelSpec
from foleypref.models.tools import fingerprint_of
from foleypref.training.data import Label
from foleypref.training.reward import Judged
from foleypref.workspace.records import Candidate, Clip, Feature, Pair
from foleypref.workspace.store import Workspace

NUM_FRAMES, NUM_CHANNELS, NUM_CONDITIONS = 6, 4, 3


class TinyNetwork(nn.Module):
    """Two layers on (x_t, t, condition), latents of all modalities flattened side by side."""

    def __init__(self, sizes: dict[str, int], hidden: int) -> None:
        super().__init__()
        self.sizes = sizes
        total = sum(sizes.values())
        self.inner = nn.Linear(total + NUM_CONDITIONS + 1, hidden)
        self.outer = nn.Linear(hidden, total)

    def forward(self, x_t: Latents, t: Tensor, clip: Tensor) -> Latents:
        flat = torch.cat([x_t[key].flatten(1) for key in self.sizes] + [t[:, None], clip], dim=1)
        out = self.outer(torch.tanh(self.inner(flat))).split(list(self.sizes.values()), dim=1)
        return {key: value.reshape(x_t[key].shape) for key, value in zip(self.sizes, out, strict=True)}


class TinyModel(Model):
    """A model that does everything the contract asks, of a size for tests."""

    joint: bool = False  # a second modality, "video"
    hidden: int = 16
    seed: int = 0
    weights: str | None = None
    noisy: bool = False  # break the contract: answer differently every time
    media: bool = False  # files have a sound and a picture, that fade and are functions of their names

    notice: ClassVar[str] = ""
    lora_targets: ClassVar[str] = "all-linear"
    _device: torch.device = PrivateAttr(default=torch.device("cpu"))

    @property
    def spec(self) -> ModelSpec:
        """24 Hz of "sound", one second."""
        latents: dict[str, tuple[int, ...]] = {"audio": (NUM_FRAMES, NUM_CHANNELS)}
        if self.joint:
            latents["video"] = (2, 3, 2)
        return ModelSpec(latents, NUM_FRAMES * NUM_CHANNELS, 1.0)

    @property
    def fingerprint(self) -> str:
        """Hash of the two layers."""
        return fingerprint_of(self.network)

    @property
    def feature_key(self) -> str:
        """Conditions depend on nothing."""
        return "tiny/1"

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Weights from `seed`, or from a file."""
        self._device = torch.device(device)
        sizes = {key: int(torch.Size(shape).numel()) for key, shape in self.spec.latents.items()}
        network = TinyNetwork(sizes, self.hidden)
        generator = generator_of("tiny", self.seed)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        if self.weights is not None:
            network.load_state_dict(load_file(self.weights))
        self._network = network.to(self._device)
        return self

    def read(self, path: Path, start_s: float = 0.0, prompt: str = "", *, audio: bool = True) -> Media:
        """Nothing of the file; with `media` 24 samples and two frames, for which it need not be there."""
        if not self.media:
            return Media({}, None, prompt)
        if path.stem.startswith("broken"):
            raise MediaError(f"{path}: is broken")
        num, generator = NUM_FRAMES * NUM_CHANNELS, generator_of("tiny media", path.stem)
        wave = torch.linspace(0.9, -0.9, num) + 0.1 * torch.randn(num, generator=generator)
        frames = torch.linspace(250, 0, 12) + torch.rand(12, generator=generator) * 5
        frames = frames.to(torch.uint8).reshape(2, 2, 1, 3)
        return Media({"video": frames.numpy()}, wave.clamp(-1, 1).numpy() if audio else None, prompt, 1.0)

    @torch.no_grad()
    def condition(self, media: Sequence[Media]) -> Conditions:
        """Brightness of the frames, length of the prompt, and one."""
        rows = [
            [float(m.frames["video"].mean()) / 255 if m.frames else 0.0, len(m.prompt) / 10, 1.0]
            for m in media
        ]
        return {"clip": torch.tensor(rows, device=self._device)}

    def velocity(self, x_t: Latents, t: Tensor, conditions: Conditions) -> Latents:
        """v(x_t, t | conditions)."""
        x_t, t = repeated(x_t, t, len(conditions["clip"]))
        v = self.network(x_t, t, conditions["clip"])
        return {key: value + torch.randn_like(value) for key, value in v.items()} if self.noisy else v

    def encode(self, waves: Tensor) -> Latents:
        """Cut the wave into latent frames."""
        return {"audio": waves.reshape(-1, NUM_FRAMES, NUM_CHANNELS).to(self._device)}

    def encode_media(self, media: Sequence[Media]) -> Latents:
        """Sound, and of a joint model the frames from -1 to 1."""
        latents = super().encode_media(media)
        if self.joint:
            frames = torch.stack([torch.from_numpy(item.frames["video"]) for item in media])
            latents["video"] = (frames.float() / 127.5 - 1).reshape(-1, 2, 3, 2).to(self._device)
        return latents

    @property
    def latent_key(self) -> str:
        """Encoding depends on nothing."""
        return "tiny/1"

    def decode(self, latents: Latents) -> Tensor:
        """Lay the latent frames end to end."""
        return latents["audio"].flatten(1).clamp(-1, 1)

    def export(self, path: str) -> None:
        """Write the two layers."""
        save_file(self.network.state_dict(), path)


class TinyReward:
    """A reward that is known: 1 where all latents are at `target`, less the farther off their mean is."""

    version = "tiny/1"

    def __init__(self, target: float = 0.5, unscored: Sequence[str] = ()) -> None:
        self.target, self.unscored = target, unscored  # clips that no judge can score

    def judge(self, clips: Sequence[Clip], latents: Latents, *, watch: bool = False) -> Judged:
        """Row by row; `watch` adds the spread of the latents."""
        rows = torch.cat([value.detach().flatten(1).float() for value in latents.values()], dim=1)
        unscored = torch.tensor([clip.clip_id in self.unscored for clip in clips])
        rewards = torch.exp(-((rows.mean(1) - self.target) ** 2)).masked_fill(unscored, 0.0).cpu()
        return Judged(rewards, unscored, {"tiny/spread": rows.std(1).cpu()} if watch else {})


def fill_workspace(
    workspace: Workspace,
    model: TinyModel | None = None,
    num_clips: int = 24,
    seed: int = 0,
    split: str = "train",
) -> list[Pair]:
    """Write fake clips, three candidates a clip with latents, conditions, and two pairs a clip.

    Chosen latents lie around a point that depends on the clip's condition, rejected ones around its opposite,
    so a tiny network can learn the preference. A pair in six is human with complexity 0; automatic pairs have
    complexity from 0.5 to 1. Returns the pairs in the order the workspace reads them.
    """
    spec = (model or TinyModel()).spec
    generator = generator_of("tiny workspace", seed)
    rows = [
        Clip(
            Clip.make_id(f"tiny-{seed}-{i}", 0.0, 1.0),
            f"{i}.mp4",
            split,
            f"clip {i}",
            0.0,
            1.0,
            2.0,
            8,
            8,
            True,
        )
        for i in range(num_clips)
    ]
    conditions = torch.randn(num_clips, NUM_CONDITIONS, generator=generator)
    key = TinyModel().feature_key
    features = [Feature.make_id(clip.clip_id, key) for clip in rows]
    shard = workspace.write_rows("features", features, {"clip": conditions})
    workspace.append(rows)
    workspace.append([Feature(f, c.clip_id, key, shard, i) for i, (f, c) in enumerate(zip(features, rows))])
    pairs = []
    for index, clip in enumerate(rows):
        candidates = _candidates(workspace, clip, conditions[index], spec, generator)
        for number, loser in enumerate(candidates[1:]):
            human = (2 * index + number) % 6 == 5
            source = "human" if human else "auto"
            complexity = 0.0 if human else 0.5 + 0.5 * float(torch.rand((), generator=generator))
            ids = (clip.clip_id, candidates[0].candidate_id, loser.candidate_id)
            pairs.append(
                Pair(Pair.make_id(*ids, source), ids[0], clip.prompt, *ids[1:], 0.9, 0.1, complexity, source)
            )
    workspace.append(pairs)
    return workspace.read(Pair)


def labels_of(pairs: Sequence[Pair]) -> list[Label]:
    """Every chosen candidate of the pairs is wanted, every rejected one is not."""
    sides = [(pair.chosen, pair.clip_id, True) for pair in pairs]
    sides += [(pair.rejected, pair.clip_id, False) for pair in pairs]
    return [Label(*side, "auto") for side in dict.fromkeys(sides)]


def _candidates(
    workspace: Workspace, clip: Clip, condition: Tensor, spec: ModelSpec, generator: torch.Generator
) -> list[Candidate]:
    signs = torch.tensor([1.0, -1.0, -1.0])
    latents = {}
    for key, shape in spec.latents.items():
        spread = 0.3 * torch.randn(3, *shape, generator=generator)
        latents[key] = spread + (signs * condition.mean()).reshape(-1, *[1] * len(shape))
    ids = [Candidate.make_id(clip.clip_id, "tiny", "w", seed, "euler", 4, 1.0) for seed in range(3)]
    shard = workspace.write_rows("latents", ids, latents)
    found = [
        Candidate(i, clip.clip_id, "tiny", "w", row, "euler", 4, 1.0, shard, row) for row, i in enumerate(ids)
    ]
    workspace.append(found)
    return found


def _kill_when(step: int | None, save: int | None) -> None:
    """Arrange for SIGKILL in the middle of a step, or with half a checkpoint written."""
    from foleypref.training.objectives.flow_dpo import FlowDPO

    def kill_in_step(self: FlowDPO, context: Any, at: int, policy: Any) -> Any:
        if at == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return draw(self, context, at, policy)

    def kill_in_save(state: Any, path: Path, **kwargs: Any) -> None:
        if save is not None and f"checkpoint-{save}." in str(path):
            Path(path).write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        write(state, path, **kwargs)

    draw, write = FlowDPO.batches, torch.save
    FlowDPO.batches, torch.save = kill_in_step, kill_in_save  # type: ignore[assignment, method-assign]


def main() -> None:
    """Train a workspace with the settings in a file."""
    from foleypref.train import TrainSettings, train

    torch.set_num_threads(1)
    at = {key: int(os.environ[key]) for key in ("KILL_AT_STEP", "KILL_AT_SAVE") if key in os.environ}
    _kill_when(at.get("KILL_AT_STEP"), at.get("KILL_AT_SAVE"))
    train(Workspace(sys.argv[1]), TrainSettings.model_validate_json(Path(sys.argv[2]).read_text()))


if __name__ == "__main__":
    main()
