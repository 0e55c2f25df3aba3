"""How each of the world's networks learns: one function a network, all on the same small loop."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tools.train_world.checkpoint import Checkpoint
from tools.train_world.data import Clips
from torch import Tensor, nn

from foleypref.flow.convention import (
    generator_of,
    interpolate,
    noise_like_rows,
    sample_times,
    seed_of,
    target_velocity,
)
from foleypref.networks.world_codec import WorldCodec
from foleypref.networks.world_dit import WorldDiT
from foleypref.networks.world_towers import AudioTextJudge, AudioVideoJudge, SecondTagger, SyncJudge, Tagger
from foleypref.workspace.walk import progress_bar
from foleypref.world import NUM_FRAMES, SAMPLES_PER_FRAME

SCENE_STRIDE = 12
Log = Callable[[dict[str, Any]], None]


def fit_network(
    name: str,
    network: nn.Module,
    loss: Callable[[int], Tensor],
    steps: int,
    learning_rate: float,
    log: Log,
    checkpoint: Checkpoint | None = None,
) -> None:
    """AdamW with warm-up and cosine decay; `loss(step)` draws its own batch from (seed, step)."""
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=1e-3, betas=(0.9, 0.98))
    first = checkpoint.load(network, optimizer) if checkpoint else 0
    start, total, count = time.perf_counter(), 0.0, 0
    with progress_bar(f"train {name}", steps) as advance:
        for step in range(first, steps):
            scale = min(1.0, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
            optimizer.param_groups[0]["lr"] = learning_rate * scale
            value = loss(step)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            total, count = total + value.item(), count + 1
            if (step + 1) % 100 == 0 or step + 1 == steps:
                seconds = round(time.perf_counter() - start, 1)
                log({"network": name, "step": step + 1, "loss": round(total / count, 5), "seconds": seconds})
                total, count = 0.0, 0
            if checkpoint and (step + 1) % checkpoint.every == 0:
                checkpoint.save(step + 1, network, optimizer)
            advance(1)
    network.eval()


def pick(num: int, batch: int, *seed: int | str) -> np.ndarray:
    """Row numbers of a batch, sorted for the memory map, as a function of the seed."""
    generator = np.random.default_rng(seed_of(*seed))
    return np.sort(generator.choice(num, min(batch, num), replace=False))


def rows_of(array: np.ndarray, index: np.ndarray) -> Tensor:
    """Rows of a memory map as a tensor; halves become floats."""
    found = torch.from_numpy(np.ascontiguousarray(array[index]))
    return found.float() if found.dtype == torch.float16 else found


@torch.inference_mode()
def rows_as_halves(
    label: str, index: np.ndarray, size: int, make: Callable[[np.ndarray], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """What `make` makes of about `size` row numbers at a time, together, as it is cached: float16."""
    found: dict[str, list[Tensor]] = {}
    with progress_bar(label, len(index)) as advance:
        for part in np.array_split(index, max(1, len(index) // size)):
            for name, value in make(part).items():
                found.setdefault(name, []).append(value.half())
            advance(len(part))
    return {name: torch.cat(values).clone() for name, values in found.items()}


def train_codec(waves: list[np.ndarray], steps: int, seed: int, log: Log) -> WorldCodec:
    """L1 on log-magnitudes and on log mel bands, with a light pull of the posterior to N(0, 1).

    Magnitudes alone lose the level of pure tones by 20 dB: a peak whose bin is uncertain has a low median in
    every bin. Bands hold its energy wherever it lies.
    """
    torch.manual_seed(seed)
    codec = WorldCodec()

    def loss(step: int) -> Tensor:
        source = waves[step % len(waves)]
        wave = rows_of(source, pick(len(source), 24, seed, "codec", step))
        mean, log_var = codec.posterior(wave)
        raw = mean + (0.5 * log_var).exp() * torch.randn(mean.shape, generator=generator_of(seed, step))
        pull = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).mean()
        found, truth = codec.magnitudes(raw), codec.log_magnitude(wave)
        bands = F.mse_loss(codec.log_bands(found), codec.log_bands(truth))
        return 0.5 * F.mse_loss(found, truth) + bands + 1e-3 * pull

    fit_network("codec", codec, loss, steps, 2e-3, log)
    with torch.no_grad():
        sample = torch.cat([codec.posterior(rows_of(w, np.arange(min(512, len(w)))))[0] for w in waves])
        codec.latent_mean.copy_(sample.mean((0, 1)))
        codec.latent_std.copy_(sample.std((0, 1)).clamp(min=1e-3))
    return codec


def _soft_contrast(similarity: Tensor, labels: Tensor) -> Tensor:
    """Contrast against all of a batch, where clips that share classes are no negatives of each other."""
    target = labels @ labels.T
    target = target / target.sum(1, keepdim=True)
    return 0.5 * (
        F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target.T / target.T.sum(1, True))
    )


def train_semantic(
    clips: Clips, sounds: list[np.ndarray], steps: int, seed: int, log: Log
) -> AudioVideoJudge:
    """Sound and picture of the same classes together, others apart."""
    torch.manual_seed(seed)
    judge, labels = AudioVideoJudge(), torch.from_numpy(clips.labels())
    scenes = np.ascontiguousarray(clips.frames[:, ::SCENE_STRIDE])  # strided rows are slow to gather

    def loss(step: int) -> Tensor:
        index = pick(len(clips), 64, seed, "semantic", step)
        audio = judge.embed_audio(rows_of(sounds[step % len(sounds)], index))
        video = judge.embed_video(rows_of(scenes, index))
        return _soft_contrast(judge.log_scale.exp() * video @ audio.T, labels[index])

    fit_network("judge_semantic", judge, loss, steps, 1e-3, log)
    return judge


def train_text(clips: Clips, sounds: list[np.ndarray], steps: int, seed: int, log: Log) -> AudioTextJudge:
    """Sound and caption of the same classes together, others apart."""
    torch.manual_seed(seed)
    judge, labels = AudioTextJudge(), torch.from_numpy(clips.labels())

    def loss(step: int) -> Tensor:
        index = pick(len(clips), 64, seed, "text", step)
        audio = judge.embed_audio(rows_of(sounds[step % len(sounds)], index))
        text = judge.embed_text([clips.rows[i]["prompt"] for i in index])
        return _soft_contrast(judge.log_scale.exp() * text @ audio.T, labels[index])

    fit_network("judge_text", judge, loss, steps, 1e-3, log)
    return judge


def train_sync(clips: Clips, sounds: list[np.ndarray], steps: int, seed: int, log: Log) -> SyncJudge:
    """Classify the lag between a window of picture and a window of sound, both inside the clip.

    Windows, not shifts with filling: a filled edge would betray the lag without any listening.
    """
    torch.manual_seed(seed)
    judge = SyncJudge()
    k, length = judge.num_lags, 72

    def loss(step: int) -> Tensor:
        index = pick(len(clips), 24, seed, "sync", step)
        frames, wave = rows_of(clips.frames, index), rows_of(sounds[step % len(sounds)], index)
        generator = np.random.default_rng(seed_of(seed, "lag", step))
        pictures, heard, target = [], [], []
        for row in range(len(index)):
            lag = int(generator.integers(-k, k + 1))
            first = int(generator.integers(max(0, -lag), NUM_FRAMES - length - max(0, lag) + 1))
            begin = (first + lag) * SAMPLES_PER_FRAME
            pictures.append(frames[row, first : first + length])
            heard.append(wave[row, begin : begin + length * SAMPLES_PER_FRAME])
            target.append(lag + k)
        logits = judge(torch.stack(pictures), torch.stack(heard))
        near = -0.5 * ((torch.arange(2 * k + 1) - torch.tensor(target)[:, None]) / 0.7).square()
        return F.cross_entropy(logits, near.softmax(1))

    fit_network("judge_sync", judge, loss, steps, 1.5e-3, log)
    return judge


def train_tagger(
    network: Tagger | SecondTagger,
    clips: Clips,
    sounds: list[np.ndarray],
    steps: int,
    seed: int,
    name: str,
    log: Log,
) -> None:
    """Cross-entropy against the true classes in equal shares."""
    labels = torch.from_numpy(clips.labels())

    def loss(step: int) -> Tensor:
        index = pick(len(clips), 64, seed, name, step)
        out = network(rows_of(sounds[step % len(sounds)], index))
        return F.cross_entropy(out[0] if isinstance(out, tuple) else out, labels[index])

    fit_network(name, network, loss, steps, 1e-3, log)


def train_flow(
    latents: Tensor, conditions: dict[str, Tensor], steps: int, seed: int, log: Log
) -> tuple[WorldDiT, dict[str, Any]]:
    """Flow matching on the wild clips: logit-normal t, 10 % dropout of all conditions, EMA of the weights."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {"width": 128, "depth": 6, "heads": 4}
    network = WorldDiT(**settings)
    average = {key: value.clone() for key, value in network.state_dict().items()}

    def loss(step: int) -> Tensor:
        index = torch.from_numpy(pick(len(latents), 32, seed, "flow", step))
        x1 = {"audio": latents[index].float()}
        x0 = noise_like_rows(
            {"audio": tuple(latents.shape[1:])}, [seed_of(seed, step, int(i)) for i in index]
        )
        generator = generator_of(seed, step, "flow")
        t = sample_times(len(index), generator, "logit_normal")
        keep = (torch.rand(len(index), generator=generator) > 0.1).float()
        c = {k: v[index].float() * keep.reshape(-1, *[1] * (v.ndim - 1)) for k, v in conditions.items()}
        with torch.autocast("cpu", torch.bfloat16):
            v = network(interpolate(x0, x1, t)["audio"], t, c["scene"], c["motion"], c["text"])
        if step > 0:
            decay = min(0.999, (step + 1) / (step + 10))
            with torch.no_grad():
                for key, value in network.state_dict().items():
                    average[key].lerp_(value, 1 - decay)
        return (v.float() - target_velocity(x0, x1)["audio"]).square().mean()

    fit_network("flow", network, loss, steps, 1e-3, log)
    network.load_state_dict(average)
    return network, settings


def json_log(path: Path) -> Log:
    """A log that appends one JSON object a line."""

    def log(row: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    return log
