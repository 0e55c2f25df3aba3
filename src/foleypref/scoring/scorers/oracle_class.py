"""Oracle: is the right thing heard? A second tagger, trained apart, against the true classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from pydantic import PrivateAttr

from foleypref.networks.world_towers import SecondTagger
from foleypref.scoring.scorers import PlainScorer, ScoreItem, is_silent
from foleypref.scoring.scorers._world import judge_version, load_judge, waves
from foleypref.workspace.records import Score
from foleypref.world import CLASSES


class OracleClass(PlainScorer):
    """class_correct: 1 if the top class is a true one; class_probability: what the true classes get."""

    needs: ClassVar[frozenset[str]] = frozenset({"audio", "truth"})
    dimensions: ClassVar[tuple[str, ...]] = ("class_correct", "class_probability")
    higher_is_better: ClassVar[dict[str, bool]] = {"class_correct": True, "class_probability": True}

    _network: SecondTagger | None = PrivateAttr(default=None)

    @property
    def version(self) -> str:
        """Hash of the weights."""
        return judge_version("oracle_tagger")

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights."""
        self._network, _ = load_judge("oracle_tagger", lambda _: SecondTagger(len(CLASSES)), device)
        return self

    @torch.inference_mode()
    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        """Two scores an item. Silence is wrong (0), not unscored: the truth says what should sound."""
        assert self._network is not None, "call load() first"
        if not items:
            return []
        probabilities = self._network(waves(items)).softmax(1).cpu().numpy()
        scores = []
        for item, p in zip(items, probabilities):
            labels = [CLASSES.index(name) for name in item.meta.get("labels", ()) if name in CLASSES]
            silent = is_silent(item.wave)
            correct = None if not labels else float(not silent and int(p.argmax()) in labels)
            mass = None if not labels else 0.0 if silent else float(p[labels].sum())
            reason = "" if labels else "the clip's truth names no class"
            for dimension, value in (("class_correct", correct), ("class_probability", mass)):
                scores.append(
                    Score.make(item.candidate_id, "oracle_class", self.version, dimension, value, reason)
                )
        return scores
