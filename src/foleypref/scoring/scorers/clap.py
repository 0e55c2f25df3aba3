"""LAION-CLAP: cosine between the embeddings of a sound and its caption, in [-1, 1] (arXiv 2211.06687).

Sound is read and padded as in av-benchmark, but of more than 10 s it hears the middle, not a random part.
The caption's tokens need RoBERTa's `vocab.json` and `merges.txt` in `roberta-base/` of the weights folder.
The weights are CC0-1.0; their conversion `laion/larger_clap_general`, which `weights` takes too, is
Apache-2.0.
"""

from __future__ import annotations

from typing import Self

import torch

from foleypref.scoring.scorers._captioned import CaptionScorer, packages


class Clap(CaptionScorer):
    """`weights` may also be a repository of the hub. Embeddings (B, 512) are of length 1."""

    width = 512

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights (0.8 GB of a file of 2.4) and the vocabulary."""
        with packages("clap"):
            from foleypref.published.clap import load_clap  # transformers: seconds to import
        self._judge = load_clap(self.weights, self.weights_folder or None, device)
        return self
