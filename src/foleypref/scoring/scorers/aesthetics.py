"""Audiobox Aesthetics: predicted ratings of a sound by itself on four axes, 1 to 10 (arXiv 2502.05139).

CE content enjoyment, CU content usefulness, PC production complexity, PQ production quality. PC grows with
the number of sources in the sound: more is not better, though the table must name a direction. Windows of
10 s are weighed by their share of sound. The weights are CC-BY-4.0, their WavLM part MIT.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from pydantic import PrivateAttr

from foleypref.published.hashes import weights_version
from foleypref.published.hub_files import weights_path
from foleypref.published.registry import files_for
from foleypref.scoring.scorers import Judgement, ScoreItem, Scorer, Unscored, Value, is_silent, loaded
from foleypref.scoring.scorers._captioned import packages

if TYPE_CHECKING:
    from foleypref.published.aesthetics import Aesthetics as Network


class Aesthetics(Scorer):
    """`weights` is a file or facebook/audiobox-aesthetics, "" the published file. Unscored: silence.

    `weights_folder` is as for models.
    """

    weights: str = ""
    weights_folder: str = ""

    needs: ClassVar[frozenset[str]] = frozenset({"audio"})
    # Neither way is up for PC; True keeps the table complete.
    higher_is_better: ClassVar[dict[str, bool]] = {"CE": True, "CU": True, "PC": True, "PQ": True}

    _network: Network | None = PrivateAttr(default=None)

    @property
    def version(self) -> str:
        """Hash of the weights, and the method's."""
        published = files_for("aesthetics")[0].name
        return weights_version(weights_path(self.weights, published, self.weights_folder or None))

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights (0.4 GB)."""
        with packages("aesthetics"):
            from foleypref.published.aesthetics import load_aesthetics  # transformers: seconds to import
        self._network = load_aesthetics(self.weights, self.weights_folder or None).to(device)
        return self

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Rate all four axes of each sound that is not silent."""
        silent = [is_silent(item.wave) for item in items]
        audible = [(item.sound, item.sample_rate) for item, quiet in zip(items, silent) if not quiet]
        ratings = iter(loaded(self._network).rate_sounds(audible).tolist())
        unscored: list[Value] = [Unscored("silent")] * len(self.dimensions)
        rows = [unscored if quiet else next(ratings) for quiet in silent]
        return Judgement({name: [row[axis] for row in rows] for axis, name in enumerate(self.dimensions)}, {})
