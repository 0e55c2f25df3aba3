"""How the flow over picture and sound learns, with the sync judge's features as a hint.

Letters: N clips, L latent frames, D channels of the judge's features, W width, P latent frames per token.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tools.train_world.data import Clips, pick, rows_as_halves, rows_of
from tools.train_world.fitting import Fit, fit_network, update_average
from torch import Tensor, nn

from foleypref.flow.convention import (
    generator_of,
    interpolate,
    noise_like_rows,
    sample_times,
    seed_of,
    target_velocity,
)
from foleypref.networks.world_joint import WorldJointDiT
from foleypref.networks.world_towers import SyncJudge

MODALITIES = ("video", "audio")
BATCH = 16
HINT_BLOCK, HINT_WEIGHT = 2, 0.5


def sync_features(judge: SyncJudge, clips: Clips) -> dict[str, Tensor]:
    """Return the sync judge's features per frame: {"video", "audio"} -> (N, L, D) float16."""

    def look_and_listen(part: np.ndarray) -> dict[str, Tensor]:
        frames, waves = rows_of(clips.frames, part), rows_of(clips.waves, part)
        return {"video": judge.motion(frames), "audio": judge.sound(waves)}

    return rows_as_halves("sync features", len(clips), 32, look_and_listen)


class Hints(nn.Module):
    """Heads that read the judge's features of the clean clip from the middle of the network.

    This is representation alignment (arXiv 2410.06940): without it, thousands of steps taught the network
    neither events nor that their picture and sound belong together. The heads are thrown away after training.
    """

    def __init__(self, network: WorldJointDiT, features: dict[str, Tensor]) -> None:
        super().__init__()
        self.network, self.features = network, features
        self.mean = {name: value.float().mean((0, 1)) for name, value in features.items()}
        self.std = {name: value.float().std((0, 1)) for name, value in features.items()}
        width, patch = network.width, network.patch
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(width, width),
                    nn.SiLU(),
                    nn.Linear(width, patch * features[name].shape[2]),
                )
                for name in MODALITIES
            }
        )
        self._middle: list[Tensor] = []
        network.blocks[HINT_BLOCK].register_forward_hook(lambda block, given, out: self._middle.append(out))

    def loss(self, index: Tensor) -> Tensor:
        """Squared error of the last forward pass against the features of clips `index`, both modalities."""
        total = torch.zeros(())
        for name, tokens in zip(MODALITIES, self._middle.pop().chunk(2, dim=1)):
            truth = (self.features[name][index].float() - self.mean[name]) / self.std[name]  # (B, L, D)
            truth = truth.unflatten(1, (-1, self.network.patch)).flatten(2)  # (B, L / P, P D)
            total = total + F.mse_loss(self.heads[name](tokens).float(), truth)
        return total


def train_joint(
    latents: dict[str, Tensor],
    text: Tensor,
    features: dict[str, Tensor],
    fit: Fit,
) -> tuple[WorldJointDiT, dict[str, Any]]:
    """Train by flow matching on the wild clips; return the network, with averaged weights, and its sizes.

    `features` are the hints. In half of the clips picture and sound have different times t: if one is nearly
    clean and the other noise, what they have in common is the easiest to learn. Both modalities weigh the
    same. One caption in ten is dropped; the scene, the mean of a clip's latents, is always there.
    """
    torch.manual_seed(fit.seed)
    settings: dict[str, Any] = {"video_dim": latents["video"].shape[2], "width": 192, "depth": 6, "heads": 3}
    network = WorldJointDiT(**settings)
    average = {key: value.clone() for key, value in network.state_dict().items()}
    hints = Hints(network, features)
    shapes = {key: tuple(value.shape[1:]) for key, value in latents.items()}
    scene = torch.stack([clip.float().mean(0) for clip in latents["video"]])  # (N, 144)

    def loss(step: int) -> Tensor:
        if step > 0:
            update_average(average, network, step, limit=0.998)
        index = torch.from_numpy(pick(len(text), BATCH, fit.seed, "joint", step))
        x1 = {key: value[index].float() for key, value in latents.items()}
        x0 = noise_like_rows(shapes, [seed_of(fit.seed, step, int(i)) for i in index])
        t, t_audio, keep = _draw_times(len(index), generator_of(fit.seed, step, "joint"))
        x_t, target = interpolate(x0, x1, t), target_velocity(x0, x1)
        x_t["audio"] = interpolate(x0, x1, t_audio)["audio"]
        captions = text[index].float() * keep[:, None]
        with torch.autocast("cpu", torch.bfloat16):
            v = network(x_t["video"], x_t["audio"], t, captions, scene[index], t_audio)
            hint = hints.loss(index)
        video, audio = (F.mse_loss(getattr(v, name).float(), target[name]) for name in MODALITIES)
        return video + audio + HINT_WEIGHT * hint

    fit_network("joint", hints, loss, fit, learning_rate=1e-3, average=average)
    network.load_state_dict(average)
    return network, settings


def _draw_times(num: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw the times of picture and sound, uniform and apart in half of the clips, and the kept captions."""
    t = sample_times(num, generator, "logit_normal")
    apart = torch.rand(num, generator=generator) < 0.5
    uniform = torch.rand(2, num, generator=generator)
    keep = (torch.rand(num, generator=generator) > 0.1).float()
    return torch.where(apart, uniform[0], t), torch.where(apart, uniform[1], t), keep
