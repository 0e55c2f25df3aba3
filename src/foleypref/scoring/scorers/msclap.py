"""Microsoft's CLAP of 2023: cosine of what a sound and its caption mean, in [-1, 1] (arXiv 2309.05767).

Read as the `msclap` package does, but beyond 7 s the middle is heard and not a random part; channels are not
mixed but heard one after the other. What is evaluated is all of the sound, whatever the evaluated length. The
caption's tokens need GPT-2's `vocab.json` and `merges.txt` in `gpt2/` of the weights folder. Weights: MS-PL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Self

import torch
import torch.nn.functional as F
from pydantic import PrivateAttr

from foleypref.published.hashes import weights_version
from foleypref.published.hub_files import weights_path
from foleypref.published.registry import files_for
from foleypref.scoring.scorers import Judgement, NetworkScorer, ScoreItem
from foleypref.scoring.scorers._captioned import in_chunks, judge_captioned, packages
from foleypref.workspace.records import Score

if TYPE_CHECKING:
    from foleypref.published.msclap import LoadedMSClap

WIDTH = 1024


class MsClap(NetworkScorer):
    """`weights` is a file, "" the published one; `weights_folder` as for models.

    Unscored: silence, which has an embedding as in the benchmarks, and what has no caption.
    """

    weights: str = ""
    weights_folder: str = ""

    needs: ClassVar[frozenset[str]] = frozenset({"audio", "text"})
    dimensions: ClassVar[tuple[str, ...]] = ("similarity",)
    higher_is_better: ClassVar[dict[str, bool]] = {"similarity": True}
    embeddings: ClassVar[tuple[str, ...]] = ("audio",)  # (B, 1024)

    _judge: LoadedMSClap | None = PrivateAttr(default=None)

    @property
    def version(self) -> str:
        """Hash of the weights, and the method's."""
        path = weights_path(self.weights, files_for("msclap")[0].name, self.weights_folder or None)
        return weights_version(path)

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights (0.7 GB) and the vocabulary."""
        with packages("msclap"):
            from foleypref.published.msclap import load_msclap  # transformers: seconds to import
        self._judge = load_msclap(self.weights, self.weights_folder or None, device)
        return self

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """One score an item."""
        judge, version = self._judge, self.version
        assert judge is not None, "call load() first"
        return judge_captioned(
            items,
            lambda item, value, why: Score.make(
                item.candidate_id, "msclap", version, "similarity", value, why
            ),
            WIDTH,
            lambda heard: in_chunks(
                [judge.wave(item.sound, item.sample_rate) for item in heard],
                judge.model.embed_audio,
                judge.device,
            ),
            judge.embed_texts,
            lambda audio, text: F.cosine_similarity(audio, text, dim=0),
        )
