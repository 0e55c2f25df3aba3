"""The reward of online objectives: p(Good) of a fitted AudioScore for latents that the policy has sampled.

A sample's reward depends only on that sample and its clip, never on its batch. Judges that the reward does
not read can be watched beside it: if the reward rises and they fall, it is being hacked. Letters: n samples.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from foleypref.flow.convention import Latents
from foleypref.models.backbones import Model
from foleypref.scoring.marginals import with_marginal
from foleypref.scoring.scorer_inputs import (
    DecodedClip,
    decode_clip,
    decode_latents,
    evaluated_seconds,
    make_score_item,
)
from foleypref.scoring.scorers import Judgement, Scorer, build_scorer, streams_of
from foleypref.scoring.scorers.audioscore import AudioScore, refuse_oracles
from foleypref.workspace.dimensions import Dimension
from foleypref.workspace.records import Clip
from foleypref.workspace.store import Workspace

CACHE_BYTES = 512 * 2**20  # of clips that are kept decoded


@dataclass(frozen=True)
class Judged:
    """Rewards of n samples, 0 if no judge could score one; values of watched judges, NaN if unscored."""

    rewards: Float32[Tensor, " n"]
    unscored: Bool[Tensor, " n"]
    watched: dict[str, Float32[Tensor, " n"]] = field(default_factory=dict)  # by "scorer/dimension"


class Reward:
    """p(Good) by WORKSPACE/audioscore/<name>.safetensors, and "scorer/dimension"s to `watch` beside it.

    Raises ValueError for a missing file, for oracles, and for watching a judge that the reward reads.
    """

    def __init__(
        self,
        workspace: Workspace,
        model: Model,
        audioscore: str = "audioscore",
        device: str | torch.device = "cpu",
        watch: Sequence[str] = (),
    ) -> None:
        self._workspace, self._model, self._device = workspace, model, torch.device(device)
        self._audioscore = AudioScore(weights=str(audioscore_file(workspace, audioscore))).load(device)
        refuse_oracles(self._audioscore.fitted.dimensions)
        self._watched = watched_scorers(workspace, watch, self._audioscore.fitted.dimensions, device)
        self._streams = streams_of([self._audioscore, *(judge for judge, _ in self._watched)])
        self._decoded: OrderedDict[str, DecodedClip] = OrderedDict()

    @property
    def version(self) -> str:
        """AudioScore's version, which changes whenever a sample's reward may change."""
        return self._audioscore.version

    def judge(self, clips: Sequence[Clip], latents: Latents, *, watch: bool = False) -> Judged:
        """Decode samples (n, ...) of n clips and judge them row by row, in float32 even under autocast.

        The result is on the CPU; `watch` also asks the watched judges.
        """
        with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
            decoded = [self._decode(clip) for clip in clips]
            seconds = [clip.seconds for clip in decoded]
            rendered = decode_latents(self._model, latents, self._streams, seconds)
            rows = enumerate(zip(decoded, rendered, strict=True))
            items = [make_score_item(f"sample-{row}", clip, sample) for row, (clip, sample) in rows]
            p_good = _column(self._audioscore.judge(items), "p_good")
            watched: dict[str, Tensor] = {}
            for judge, names in self._watched if watch else []:
                judgement = judge.judge(items)
                watched |= {name: _column(judgement, Dimension.parse(name).name) for name in names}
        return Judged(p_good.nan_to_num(0.0), p_good.isnan(), watched)

    def _decode(self, clip: Clip) -> DecodedClip:
        """Return a clip decoded, or from the cache, which drops the least recently used clips."""
        decoded = self._decoded.pop(clip.clip_id, None)
        if decoded is None:
            decoded = decode_clip(self._workspace, clip, self._streams, evaluated_seconds(clip, self._model))
        self._decoded[clip.clip_id] = decoded
        while len(self._decoded) > 1 and sum(clip.num_bytes for clip in self._decoded.values()) > CACHE_BYTES:
            self._decoded.popitem(last=False)
        return decoded


def audioscore_file(workspace: Workspace, name: str) -> Path:
    """Return the path of a fitted AudioScore. Raises ValueError if there is none."""
    path = workspace.audioscore(name).weights
    if not path.exists():
        fitted = ", ".join(sorted(p.stem for p in path.parent.glob("*.safetensors"))) or "none"
        raise ValueError(f"{path} is missing (fitted: {fitted}); run fit first, a reward needs AudioScore")
    return path


def watched_scorers(
    workspace: Workspace, watch: Sequence[str], read: Sequence[str], device: str | torch.device
) -> list[tuple[Scorer, list[str]]]:
    """Load the scorers of watched "scorer/dimension"s; return each with those of the names that are its own.

    Raises ValueError for oracles, for unknown names and for dimensions that the reward reads.
    """
    refuse_oracles(watch)
    names: dict[str, list[str]] = {}
    for dimension in watch:
        if dimension in read:
            raise ValueError(f"watch: {dimension} is read by the reward; watch judges that it does not read")
        names.setdefault(Dimension.parse(dimension).scorer, []).append(dimension)
    scorers = []
    for name, dimensions in names.items():
        scorer = with_marginal(workspace, name, build_scorer(name), str(device))
        for dimension in dimensions:
            if Dimension.parse(dimension).name not in scorer.dimensions:
                known = ", ".join(str(Dimension(name, d)) for d in scorer.dimensions)
                raise ValueError(f"watch: there is no {dimension}; choose from {known}")
        scorers.append((copy.copy(scorer).load(device), dimensions))
    return scorers


def _column(judgement: Judgement, dimension: str) -> Float32[Tensor, " n"]:
    return torch.from_numpy(judgement.column(dimension)).float()
