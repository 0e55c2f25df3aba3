"""VGGish: embeddings of each 0.96 s of sound, for the oldest Fréchet audio distance (FD over all patches).

A clip's row holds its patches in order, (P, 128), P as many as fit into the evaluated window; the row of a
shorter sound ends in NaN. `Frechet(embedding="vggish/patches", rows_of=128)` takes the rows apart again.
Weights and code are Apache-2.0 (arXiv 1609.09430).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from pydantic import PrivateAttr
from torch import Tensor

from foleypref.networks.vggish import HOP, NUM_FEATURES, PATCH_FRAMES, SAMPLE_RATE, num_patches
from foleypref.networks.vggish import VGGish as Network
from foleypref.published.hashes import weights_version
from foleypref.published.taggers import VGGISH, benchmark_wave, embed_patches, load_vggish, tagger_file
from foleypref.scoring.scorers import Judgement, ScoreItem, Scorer, is_silent, loaded, values_of

PATCH_S = PATCH_FRAMES * HOP / SAMPLE_RATE


class Vggish(Scorer):
    """`weights` is a file, "" the published one. `heard_s`, the seconds in its patches, is no quality.

    Unscored: silence, which has an embedding as in the benchmarks, and sound under 0.975 s, which has none.
    """

    weights: str = ""
    weights_folder: str = ""

    needs: ClassVar[frozenset[str]] = frozenset({"audio"})
    asides: ClassVar[tuple[str, ...]] = ("heard_s",)
    higher_is_better: ClassVar[dict[str, bool]] = {"heard_s": True}
    embeddings: ClassVar[tuple[str, ...]] = ("patches",)  # (B, P, 128)

    _network: Network | None = PrivateAttr(default=None)

    @property
    def version(self) -> str:
        """Hash of the weights, and the method's."""
        return weights_version(tagger_file(VGGISH, self.weights_folder, self.weights))

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights (0.3 GB)."""
        self._network = load_vggish(self.weights_folder or None, self.weights).to(device)
        return self

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Embed every whole patch of each sound."""
        waves = [benchmark_wave(item.sound, item.sample_rate, SAMPLE_RATE, item.seconds) for item in items]
        patches = embed_patches(loaded(self._network), waves)
        sizes = [
            num_patches(len(wave) if item.seconds is None else int(SAMPLE_RATE * item.seconds))
            for item, wave in zip(items, waves)
        ]
        rows = torch.full((len(items), max([1, *sizes]), NUM_FEATURES), torch.nan)
        for row, own in zip(rows, patches):
            row[: len(own)] = own
        reasons = [_unscored(wave, len(own)) for wave, own in zip(waves, patches)]
        heard_s = values_of(reasons, (len(own) * PATCH_S for own in patches))
        return Judgement({"heard_s": heard_s}, {"patches": rows})


def _unscored(wave: Tensor, count: int) -> str:
    """Return why a sound with `count` patches cannot be judged, or ""."""
    if is_silent(wave.numpy()):
        return "silent"
    return "" if count else "shorter than one patch of 0.975 s"
