"""How the world's codec, judges, taggers and flow over sound learn: one function per network."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tools.train_world.data import Clips, pick, rows_of
from tools.train_world.fitting import Fit, fit_network, update_average
from torch import Tensor

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
from foleypref.world import NUM_FRAMES, SAMPLES_PER_FRAME

SCENE_STRIDE = 12


def train_codec(waves: list[np.ndarray], fit: Fit) -> WorldCodec:
    """Minimise the squared error of log-magnitudes and log mel bands, the posterior drawn to N(0, 1).

    Magnitudes alone lose the level of pure tones by 20 dB: a peak whose bin is uncertain has a low median in
    every bin. Bands hold its energy wherever it lies.
    """
    torch.manual_seed(fit.seed)
    codec = WorldCodec()

    def loss(step: int) -> Tensor:
        source = waves[step % len(waves)]
        wave = rows_of(source, pick(len(source), 24, fit.seed, "codec", step))
        mean, log_var = codec.posterior(wave)
        raw = mean + (0.5 * log_var).exp() * torch.randn(mean.shape, generator=generator_of(fit.seed, step))
        pull = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).mean()
        decoded, truth = codec.magnitudes(raw), codec.log_magnitude(wave)
        bands = F.mse_loss(codec.log_bands(decoded), codec.log_bands(truth))
        return 0.5 * F.mse_loss(decoded, truth) + bands + 1e-3 * pull

    fit_network("codec", codec, loss, fit, learning_rate=2e-3)
    with torch.no_grad():
        sample = torch.cat([codec.posterior(rows_of(w, np.arange(min(512, len(w)))))[0] for w in waves])
        codec.latent_mean.copy_(sample.mean((0, 1)))
        codec.latent_std.copy_(sample.std((0, 1)).clamp(min=1e-3))
    return codec


def _soft_contrast(similarity: Tensor, labels: Tensor) -> Tensor:
    """Contrast each clip with all of its batch; clips that share classes are no negatives of each other."""
    target = labels @ labels.T
    target = target / target.sum(1, keepdim=True)
    return 0.5 * (
        F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target.T / target.T.sum(1, True))
    )


def train_semantic(clips: Clips, sounds: list[np.ndarray], fit: Fit) -> AudioVideoJudge:
    """Pull the embeddings of sounds and pictures of the same classes together, and others apart."""
    torch.manual_seed(fit.seed)
    judge, labels = AudioVideoJudge(), torch.from_numpy(clips.labels())
    scenes = np.ascontiguousarray(clips.frames[:, ::SCENE_STRIDE])  # strided rows are slow to gather

    def loss(step: int) -> Tensor:
        index = pick(len(clips), 64, fit.seed, "semantic", step)
        audio = judge.embed_audio(rows_of(sounds[step % len(sounds)], index))
        video = judge.embed_video(rows_of(scenes, index))
        return _soft_contrast(judge.log_scale.exp() * video @ audio.T, labels[index])

    fit_network("judge_semantic", judge, loss, fit, learning_rate=1e-3)
    return judge


def train_text(clips: Clips, sounds: list[np.ndarray], fit: Fit) -> AudioTextJudge:
    """Pull the embeddings of sounds and captions of the same classes together, and others apart."""
    torch.manual_seed(fit.seed)
    judge, labels = AudioTextJudge(), torch.from_numpy(clips.labels())

    def loss(step: int) -> Tensor:
        index = pick(len(clips), 64, fit.seed, "text", step)
        audio = judge.embed_audio(rows_of(sounds[step % len(sounds)], index))
        text = judge.embed_text([clips.rows[i]["prompt"] for i in index])
        return _soft_contrast(judge.log_scale.exp() * text @ audio.T, labels[index])

    fit_network("judge_text", judge, loss, fit, learning_rate=1e-3)
    return judge


def train_sync(clips: Clips, sounds: list[np.ndarray], fit: Fit) -> SyncJudge:
    """Learn to classify the lag between a window of picture and a window of sound, both inside the clip.

    The windows are cut, not shifted and filled: a filled edge would betray the lag without any listening.
    """
    torch.manual_seed(fit.seed)
    judge = SyncJudge()
    k, length = judge.num_lags, 72

    def loss(step: int) -> Tensor:
        index = pick(len(clips), 24, fit.seed, "sync", step)
        frames, wave = rows_of(clips.frames, index), rows_of(sounds[step % len(sounds)], index)
        generator = np.random.default_rng(seed_of(fit.seed, "lag", step))
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

    fit_network("judge_sync", judge, loss, fit, learning_rate=1.5e-3)
    return judge


def train_tagger(
    network: Tagger | SecondTagger,
    clips: Clips,
    sounds: list[np.ndarray],
    name: str,
    fit: Fit,
) -> None:
    """Minimise the cross-entropy against the true classes in equal shares."""
    labels = torch.from_numpy(clips.labels())

    def loss(step: int) -> Tensor:
        index = pick(len(clips), 64, fit.seed, name, step)
        out = network(rows_of(sounds[step % len(sounds)], index))
        return F.cross_entropy(out[0] if isinstance(out, tuple) else out, labels[index])

    fit_network(name, network, loss, fit, learning_rate=1e-3)


def train_flow(latents: Tensor, conditions: dict[str, Tensor], fit: Fit) -> tuple[WorldDiT, dict[str, Any]]:
    """Train by flow matching on the wild clips; return the network, with averaged weights, and its sizes.

    t is logit-normal; for one clip in ten all conditions are dropped.
    """
    torch.manual_seed(fit.seed)
    settings: dict[str, Any] = {"width": 128, "depth": 6, "heads": 4}
    network = WorldDiT(**settings)
    average = {key: value.clone() for key, value in network.state_dict().items()}

    def loss(step: int) -> Tensor:
        index = torch.from_numpy(pick(len(latents), 32, fit.seed, "flow", step))
        x1 = {"audio": latents[index].float()}
        x0 = noise_like_rows(
            {"audio": tuple(latents.shape[1:])}, [seed_of(fit.seed, step, int(i)) for i in index]
        )
        generator = generator_of(fit.seed, step, "flow")
        t = sample_times(len(index), generator, "logit_normal")
        keep = (torch.rand(len(index), generator=generator) > 0.1).float()
        c = {k: v[index].float() * keep.reshape(-1, *[1] * (v.ndim - 1)) for k, v in conditions.items()}
        with torch.autocast("cpu", torch.bfloat16):
            v = network(interpolate(x0, x1, t)["audio"], t, c["scene"], c["motion"], c["text"])
        if step > 0:
            update_average(average, network, step, limit=0.999)
        return (v.float() - target_velocity(x0, x1)["audio"]).square().mean()

    fit_network("flow", network, loss, fit, learning_rate=1e-3)
    network.load_state_dict(average)
    return network, settings
