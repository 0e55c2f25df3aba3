"""Microsoft's CLAP of 2023: cosine between sound and caption embeddings, in [-1, 1] (arXiv 2309.05767).

Sound is read as in the `msclap` package, but of more than 7 s it hears the middle, not a random part.
Channels are not mixed but heard one after the other. It hears the whole sound, not only the evaluated window.
The caption's tokens need GPT-2's `vocab.json` and `merges.txt` in `gpt2/` of the weights folder. The weights
are MS-PL.
"""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from foleypref.scoring.scorers._captioned import CaptionScorer, packages


class MsClap(CaptionScorer):
    """`weights` is a file. Embeddings (B, 1024) are not of length 1."""

    width = 1024

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights (0.7 GB) and the vocabulary."""
        with packages("msclap"):
            from foleypref.published.msclap import load_msclap  # transformers: seconds to import
        self._judge = load_msclap(self.weights, self.weights_folder or None, device)
        return self

    def similarity(self, sound: Tensor, caption: Tensor) -> Tensor:
        """Return the cosine of two embeddings (1024,)."""
        return F.cosine_similarity(sound, caption, dim=0)
