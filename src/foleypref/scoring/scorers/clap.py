"""LAION-CLAP: cosine between the embeddings of a sound and its caption, in [-1, 1] (arXiv 2211.06687).

Sound is read and padded as in av-benchmark, but of more than 10 s it hears the middle, not a random part.
The caption's tokens need RoBERTa's `vocab.json` and `merges.txt` in `roberta-base/` of the weights folder.
The weights are CC0-1.0; their conversion `laion/larger_clap_general`, which `weights` takes too, is
Apache-2.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import torch
from pydantic import PrivateAttr
from torch import Tensor

from foleypref.scoring.scorers import Judgement, ScoreItem, loaded
from foleypref.scoring.scorers._captioned import (
    CaptionScorer,
    Embedders,
    compare_captions,
    in_chunks,
    packages,
)

if TYPE_CHECKING:
    from foleypref.published.htsat import LoadedClap

WIDTH = 512


class Clap(CaptionScorer):
    """`weights` may also be a repository of the hub. Embeddings (B, 512) are of length 1."""

    _judge: LoadedClap | None = PrivateAttr(default=None)

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights (0.8 GB of a file of 2.4) and the vocabulary."""
        with packages("clap"):
            from foleypref.published.clap import load_clap  # transformers: seconds to import
        self._judge = load_clap(self.weights, self.weights_folder or None, device)
        return self

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Compare each sound with its caption."""
        judge = loaded(self._judge)

        def embed_audio(heard: list[ScoreItem]) -> Tensor:
            waves = [judge.wave(item.sound, item.sample_rate, item.seconds) for item in heard]
            return in_chunks(waves, judge.model.embed_audio, judge.device)

        embedders = Embedders(WIDTH, embed_audio, judge.embed_texts, torch.dot)
        values, rows = compare_captions(items, embedders)
        return Judgement({"similarity": values}, {"audio": rows})
