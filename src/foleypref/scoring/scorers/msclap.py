"""Microsoft's CLAP of 2023: cosine between sound and caption embeddings, in [-1, 1] (arXiv 2309.05767).

Sound is read as in the `msclap` package, but of more than 7 s it hears the middle, not a random part.
Channels are not mixed but heard one after the other. It hears the whole sound, not only the evaluated window.
The caption's tokens need GPT-2's `vocab.json` and `merges.txt` in `gpt2/` of the weights folder. The weights
are MS-PL.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F
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

WIDTH = 1024


class MsClap(CaptionScorer):
    """`weights` is a file. Embeddings (B, 1024) are not of length 1."""

    _judge: LoadedClap | None = PrivateAttr(default=None)

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights (0.7 GB) and the vocabulary."""
        with packages("msclap"):
            from foleypref.published.msclap import load_msclap  # transformers: seconds to import
        self._judge = load_msclap(self.weights, self.weights_folder or None, device)
        return self

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Compare each sound with its caption."""
        judge = loaded(self._judge)

        def embed_audio(heard: list[ScoreItem]) -> Tensor:
            waves = [judge.wave(item.sound, item.sample_rate) for item in heard]
            return in_chunks(waves, judge.model.embed_audio, judge.device)

        embedders = Embedders(WIDTH, embed_audio, judge.embed_texts, partial(F.cosine_similarity, dim=0))
        values, rows = compare_captions(items, embedders)
        return Judgement({"similarity": values}, {"audio": rows})
