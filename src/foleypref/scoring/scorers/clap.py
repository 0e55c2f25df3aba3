"""LAION-CLAP: cosine of what a sound and its caption mean, in [-1, 1] (arXiv 2211.06687).

Read and padded as av-benchmark does, but beyond 10 s the middle is heard and not a random part. The caption's
tokens need RoBERTa's `vocab.json` and `merges.txt` in `roberta-base/` of the weights folder. The weights are
CC0-1.0, their conversion `laion/larger_clap_general`, which `weights` takes as well, is Apache-2.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from pydantic import PrivateAttr

from foleypref.published.hashes import weights_version
from foleypref.published.hub_files import weights_path
from foleypref.published.registry import files_for
from foleypref.scoring.scorers import Judgement, NetworkScorer, ScoreItem
from foleypref.scoring.scorers._captioned import in_chunks, judge_captioned, packages
from foleypref.workspace.records import Score

if TYPE_CHECKING:
    from foleypref.published.clap import LoadedClap

WIDTH = 512


class Clap(NetworkScorer):
    """`weights` is a file or a repository of the hub, "" the published file; `weights_folder` as for models.

    Unscored: silence, which has an embedding as in the benchmarks, and what has no caption.
    """

    weights: str = ""
    weights_folder: str = ""

    needs: ClassVar[frozenset[str]] = frozenset({"audio", "text"})
    dimensions: ClassVar[tuple[str, ...]] = ("similarity",)
    higher_is_better: ClassVar[dict[str, bool]] = {"similarity": True}
    embeddings: ClassVar[tuple[str, ...]] = ("audio",)  # (B, 512), of length 1

    _judge: LoadedClap | None = PrivateAttr(default=None)

    @property
    def version(self) -> str:
        """Hash of the weights, and the method's."""
        path = weights_path(self.weights, files_for("clap")[0].name, self.weights_folder or None)
        return weights_version(path)

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights (0.8 GB of a file of 2.4) and the vocabulary."""
        with packages("clap"):
            from foleypref.published.clap import load_clap  # transformers: seconds to import
        self._judge = load_clap(self.weights, self.weights_folder or None, device)
        return self

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """One score an item."""
        judge, version = self._judge, self.version
        assert judge is not None, "call load() first"
        return judge_captioned(
            items,
            lambda item, value, why: Score.make(item.candidate_id, "clap", version, "similarity", value, why),
            WIDTH,
            lambda heard: in_chunks(
                [judge.wave(item.sound, item.sample_rate, item.seconds) for item in heard],
                judge.model.embed_audio,
                judge.device,
            ),
            judge.embed_texts,
            torch.dot,
        )
