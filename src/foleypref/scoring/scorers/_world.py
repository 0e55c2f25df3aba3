"""The base of the world's scorers with a network: loading committed weights, stacking items to a batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Self, TypeVar

import numpy as np
import torch
from pydantic import PrivateAttr
from torch import Tensor, nn

from foleypref.media.clip import held
from foleypref.media.streams import FrameStream, square
from foleypref.networks.resample import HANN, resample
from foleypref.scoring.scorers import Judgement, ScoreItem, Scorer, judge_usable
from foleypref.world import FPS, NUM_FRAMES, NUM_SAMPLES, SAMPLE_RATE
from foleypref.world.weights import file_hash, load_weights, weights_path

N = TypeVar("N", bound=nn.Module)

PICTURE = square(FPS, 48)
"""The frames that the world's judges see: 25 per second, 48 pixels a side."""


class WorldScorer(Scorer):
    """Base of the scorers that run a network committed with the package."""

    trained: ClassVar[str]
    """Name of the committed weights."""
    empty: ClassVar[Callable[[], nn.Module]]
    """Makes the network that they fill."""

    _network: nn.Module | None = PrivateAttr(default=None)
    _others: dict[str, Tensor] = PrivateAttr(default_factory=dict)  # other tensors in the file of weights

    @property
    def version(self) -> str:
        """The first characters of the weights' hash."""
        return file_hash(weights_path(self.trained))[:8]

    @property
    def streams(self) -> tuple[FrameStream, ...]:
        """25 frames per second, 48 pixels a side, if it looks at the picture."""
        return (PICTURE,) if "video" in self.needs else ()

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the committed weights and return itself."""
        state, _ = load_weights(weights_path(self.trained))
        network = type(self).empty()
        network.load_state_dict({k: v for k, v in state.items() if not k.startswith("extra.")})
        self._network = network.to(device).eval().requires_grad_(False)
        self._others = {k.removeprefix("extra."): v for k, v in state.items() if k.startswith("extra.")}
        return self

    def network(self, kind: type[N]) -> N:
        """Return the loaded network, which is of this kind."""
        assert isinstance(self._network, kind), "call load() first"
        return self._network


class WorldMeasure(WorldScorer):
    """Base of those that give one number and no embedding."""

    @torch.inference_mode()
    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Judge the items that lack none of `needs`."""
        (dimension,) = self.dimensions
        return Judgement({dimension: judge_usable(items, self.needs, self.numbers)}, {})

    @abstractmethod
    def numbers(self, items: list[ScoreItem]) -> list[float]:
        """Return the number of each item, all of which have what it needs."""


def waves(items: Sequence[ScoreItem], network: nn.Module) -> Tensor:
    """Stack sounds to (B, 64000) on the network's device: resampled, cut, or padded with silence."""
    rows = torch.zeros(len(items), NUM_SAMPLES)
    for row, item in zip(rows, items):
        wave = resample(torch.from_numpy(item.wave), item.sample_rate, SAMPLE_RATE, HANN)[:NUM_SAMPLES]
        row[: len(wave)] = wave
    return rows.to(_device_of(network))


def pictures(items: Sequence[ScoreItem], network: nn.Module) -> Tensor:
    """Stack frames to (B, 100, H, W, 3) uint8 on the network's device; a short clip holds its last frame."""
    frames = np.stack([held(item.frames[PICTURE.key], NUM_FRAMES) for item in items])
    return torch.from_numpy(frames).to(_device_of(network))


def _device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
