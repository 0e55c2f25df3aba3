"""PaSST: the second AudioSet tagger of the benchmarks, for their logits (KL) and features (FD).

It hears 10 s at 32 kHz; shorter sound is followed by silence. Its `confidence`, Σ p log p of the softmax in
nats, may check a reward that was made with PANNs. Weights and code are Apache-2.0 (arXiv 2110.05069).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from pydantic import PrivateAttr

from foleypref.networks.passt import SAMPLE_RATE
from foleypref.networks.passt import PaSST as Network
from foleypref.published.hashes import weights_version
from foleypref.published.taggers import PASST, benchmark_wave, load_passt, tag, tagger_file
from foleypref.scoring.scorers import Judgement, ScoreItem, Scorer, is_silent, loaded, values_of


class Passt(Scorer):
    """`weights` is a file, "" the published one.

    Silence is unscored but has embeddings, as in the benchmarks; a sound of no samples has none.
    """

    weights: str = ""
    weights_folder: str = ""

    needs: ClassVar[frozenset[str]] = frozenset({"audio"})
    higher_is_better: ClassVar[dict[str, bool]] = {"confidence": True}
    embeddings: ClassVar[tuple[str, ...]] = ("logits", "features")  # (B, 527), (B, 768)

    _network: Network | None = PrivateAttr(default=None)

    @property
    def version(self) -> str:
        """Hash of the weights, and the method's."""
        return weights_version(tagger_file(PASST, self.weights_folder, self.weights))

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights (0.3 GB)."""
        self._network = load_passt(self.weights_folder or None, self.weights).to(device)
        return self

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Tag all sounds; silence has embeddings too."""
        waves = [benchmark_wave(item.sound, item.sample_rate, SAMPLE_RATE, item.seconds) for item in items]
        tags = tag(loaded(self._network), waves)
        log_p = tags.logits.double().log_softmax(1)
        confidence = (log_p.exp() * log_p).sum(1).tolist()
        reasons = ["silent" if is_silent(wave.numpy()) else "" for wave in waves]
        return Judgement({"confidence": values_of(reasons, confidence)}, tags._asdict())
