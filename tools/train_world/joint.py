"""How the networks around the joint flow learn: the video codec, and the oracle that sees events."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tools.train_world.data import Clips, pick, rows_as_halves, rows_of, save_array
from tools.train_world.fitting import Fit, fit_network
from torch import Tensor

from foleypref.flow.convention import generator_of
from foleypref.networks.world_codec import WorldCodec
from foleypref.networks.world_towers import EventFinder
from foleypref.networks.world_video_codec import WorldVideoCodec, to_pictures
from foleypref.workspace.walk import progress_bar
from foleypref.world import FPS, NUM_FRAMES

CROP = 24  # pixels: the video codec learns from squares where something moves
EVENT_WINDOW = 80  # frames the event finder learns from: no prior of when clips begin


def train_video_codec(clips: Clips, fit: Fit) -> WorldVideoCodec:
    """Minimise the squared error of squares cut out where something moves, heavier on the pixels that do.

    Most of a picture stands still; shown all of it, the codec learns walls first and hammers last. A pure L1
    loss erases thin things: where a hammer may be or not, the median is the wall behind.
    """
    torch.manual_seed(fit.seed)
    codec = WorldVideoCodec().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    means = np.stack([clip[::5].mean(0, dtype=np.float32).astype(np.uint8) for clip in clips.frames])

    def loss(step: int) -> Tensor:
        index = pick(len(clips), 128, fit.seed, "video_codec", step)
        generator = generator_of(fit.seed, step, "video_codec")
        frame = torch.randint(1, NUM_FRAMES, (len(index),), generator=generator)
        pairs = np.stack([clips.frames[i, k - 1 : k + 1] for i, k in zip(index, frame.tolist())])
        before, x = (to_pictures(part) for part in torch.from_numpy(pairs).unbind(1))
        still, step_change = to_pictures(torch.from_numpy(means[index])), _moved(x, before, 0.2)
        weight = 1 + 4 * _moved(x, still, 0.3) + 4 * step_change
        cut = _crops(weight, generator)
        x, weight = cut(x).contiguous(memory_format=torch.channels_last), cut(weight)
        with torch.autocast("cpu", torch.bfloat16):
            mean, log_var = (part.float() for part in codec.posterior(x))
            decoded = codec.pictures(
                mean + (0.5 * log_var).exp() * torch.randn(mean.shape, generator=generator)
            )
        error = decoded.float() - x
        pull = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).mean()
        error = error.square() + 0.1 * error.abs()
        return (weight * error).sum() / (3 * weight.sum()) + 1e-4 * pull

    fit_network("video_codec", codec, loss, fit, learning_rate=2e-3)
    codec = codec.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    _normalise(codec, clips)
    return codec


def _crops(weight: Tensor, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Return a function that cuts one square of each picture, placed at random by `weight` (M, 1, H, W)."""
    places = F.avg_pool2d(weight - 0.9, CROP, 8).flatten(1)  # (M, 16)
    chosen = torch.multinomial(places, 1, generator=generator)[:, 0]
    side = int(places.shape[1] ** 0.5)

    def cut(x: Tensor) -> Tensor:
        squares = x.unfold(2, CROP, 8).unfold(3, CROP, 8)  # (M, C, 4, 4, CROP, CROP)
        return squares[torch.arange(len(x)), :, chosen // side, chosen % side]

    return cut


def _moved(x: Tensor, other: Tensor, full: float) -> Tensor:
    """Return how much pictures (M, 3, H, W) differ, as (M, 1, H, W): 1 for a difference of `full` or more."""
    return ((x - other).abs().amax(1, keepdim=True) / full).clamp(max=1)


@torch.no_grad()
def _normalise(codec: WorldVideoCodec, clips: Clips) -> None:
    """Turn and scale the latents so that what moves in a clip, its difference to its mean, has deviation 1.

    With one scale for everything, all motion lay within a tenth of it, which the flow's noise hides until its
    end. What stands still varies more than that from clip to clip, but it is the network's condition.
    """
    frames = torch.from_numpy(clips.frames[:400, ::5].copy())  # (N, 20, 48, 48, 3)
    raw = torch.stack(
        [codec.posterior(to_pictures(clip))[0].flatten(1) for clip in frames]
    ).double()  # (N, 20, D)
    codec.latent_mean.copy_(raw.mean((0, 1)))
    moving = (raw - raw.mean(1, keepdim=True)).flatten(0, 1)
    spread = moving.T.cov()
    values, basis = torch.linalg.eigh(spread / spread.trace() + 0.2 / len(spread) * torch.eye(len(spread)))
    turned = moving @ (basis / values.sqrt())
    codec.latent_basis.copy_(basis)
    codec.latent_scale.copy_(1 / (values.sqrt() * turned.std()))


def latents_of(codec: WorldCodec, video: WorldVideoCodec, clips: Clips) -> dict[str, Tensor]:
    """Return both modalities' normalised latents in float16, as they are cached."""

    def encode(part: np.ndarray) -> dict[str, Tensor]:
        audio = codec.encode(rows_of(clips.waves, part))
        with torch.autocast("cpu", torch.bfloat16):
            return {"audio": audio, "video": video.encode(rows_of(clips.frames, part))}

    return rows_as_halves("latents", len(clips), 16, encode)


@torch.inference_mode()
def write_through_codec(video: WorldVideoCodec, clips: Clips, path: Path, seed: int) -> None:
    """Write the clips' pictures after encoding and decoding, with noise of up to 0.2 on each clip's latents.

    Generated latents are never quite those of the codec, and the event finder must forgive their flicker.
    """
    out = np.zeros((len(clips), *clips.frames.shape[1:]), np.uint8)
    with progress_bar("video codec", len(clips)) as advance, torch.autocast("cpu", torch.bfloat16):
        for row in range(len(clips)):
            generator = generator_of(seed, "through", row)
            latents = video.encode(rows_of(clips.frames, np.array([row])))
            level = 0.2 * torch.rand(1, generator=generator)
            noisy = latents + level * torch.randn(latents.shape, generator=generator)
            out[row] = video.decode(noisy)[0].numpy()
            advance(1)
    save_array(path, out)


def train_events(clips: Clips, pictures: list[np.ndarray], fit: Fit) -> EventFinder:
    """Minimise the cross-entropy per frame against the true event times, softened by a frame on each side.

    The sources of pictures take turns; half of the windows are mirrored.
    """
    torch.manual_seed(fit.seed)
    network = EventFinder()
    truth = torch.from_numpy(np.stack([_event_curve(row["event_times_s"]) for row in clips.rows]))

    def loss(step: int) -> Tensor:
        index = pick(len(clips), 16, fit.seed, "events", step)
        generator = generator_of(fit.seed, step, "events")
        first = int(torch.randint(0, NUM_FRAMES - EVENT_WINDOW + 1, (1,), generator=generator))
        frames = rows_of(pictures[step % len(pictures)], index)[:, first : first + EVENT_WINDOW]
        if torch.rand(1, generator=generator) < 0.5:
            frames = frames.flip(3)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(frames)
        return F.binary_cross_entropy_with_logits(
            logits.float(), truth[index, first : first + EVENT_WINDOW], pos_weight=torch.tensor(3.0)
        )

    fit_network("oracle_events", network, loss, fit, learning_rate=2e-3)
    return network


def _event_curve(times_s: list[float]) -> np.ndarray:
    """Return (100,) float32: 1 on the frames of events, less beside them."""
    frames = np.round(np.asarray(times_s) * FPS)
    distance = np.abs(np.arange(NUM_FRAMES)[:, None] - frames[None, :])
    return np.exp(-0.5 * (distance.min(1, initial=99.0) / 0.6) ** 2).astype(np.float32)
