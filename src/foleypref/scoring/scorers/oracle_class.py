"""Oracle: is the right thing heard? A second tagger, trained apart, against the true classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch

from foleypref.networks.world_towers import SecondTagger
from foleypref.scoring.scorers import Judgement, ScoreItem, Unscored, Value, is_silent
from foleypref.scoring.scorers._world import WorldScorer, waves
from foleypref.world import CLASSES


class OracleClass(WorldScorer):
    """class_correct: 1 if the top class is a true one; class_probability: the sum over the true classes."""

    trained = "oracle_tagger"
    empty = partial(SecondTagger, len(CLASSES))
    needs: ClassVar[frozenset[str]] = frozenset({"audio", "truth"})
    higher_is_better: ClassVar[dict[str, bool]] = {"class_correct": True, "class_probability": True}

    @torch.inference_mode()
    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Tag each sound. Silence is wrong (0), not unscored: the truth says that something should sound."""
        network = self.network(SecondTagger)
        values: dict[str, list[Value]] = {name: [] for name in self.dimensions}
        probabilities = network(waves(items, network)).softmax(1).cpu().numpy() if items else ()
        for item, p in zip(items, probabilities):
            labels = [CLASSES.index(name) for name in item.meta.get("labels", ()) if name in CLASSES]
            correct: Value = float(int(p.argmax()) in labels)
            mass: Value = float(p[labels].sum())
            if not labels:
                correct = mass = Unscored("the clip's truth names no class")
            elif is_silent(item.wave):
                correct = mass = 0.0
            values["class_correct"].append(correct)
            values["class_probability"].append(mass)
        return Judgement(values, {})
