"""DeSync: seconds by which sound and picture differ, as Synchformer hears and sees it (arXiv 2401.16423).

The mean of |offset| over the first and the last 14 segments (4.8 s each), as av-benchmark has it: multiples
of 0.1 s in [0, 2]. The weights, `synchformer_state_dict.pth`, come with MMAudio, whose checkpoints are
CC-BY-NC 4.0; of their own they state no licence. MMAudio sees the video through the same network: where it
made the sound, this judge is no stranger to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from pydantic import PrivateAttr
from torch import Tensor

from foleytune.networks.synchformer import CLASSES
from foleytune.published.hashes import weights_version
from foleytune.published.synchformer import (
    FPS,
    NAME,
    DeSync,
    check_length,
    desync_s,
    load_synchformer,
    offsets_s,
)
from foleytune.published.weights import locate
from foleytune.records import Score
from foleytune.scorers import Judgement, NetworkScorer, ScoreItem
from foleytune.scorers._pictured import once_a_clip, unseen
from foleytune.streams import FrameStream, bicubic

PICTURE = bicubic(FPS, 224, crop=True)


class Synchformer(NetworkScorer):
    """`weights_folder` as for models. Lower is better; the signed offsets are in the embedding's argmax.

    Unscored: silence, no picture, under 4.8 s evaluated, picture or sound shorter than what is evaluated.
    """

    weights_folder: str = ""

    needs: ClassVar[frozenset[str]] = frozenset({"audio", "video"})
    dimensions: ClassVar[tuple[str, ...]] = ("desync_s",)
    higher_is_better: ClassVar[dict[str, bool]] = {"desync_s": False}
    embeddings: ClassVar[tuple[str, ...]] = ("offset_logits",)  # (B, 2, 21) over `offset_grid`

    _judge: DeSync | None = PrivateAttr(default=None)

    @property
    def streams(self) -> tuple[FrameStream, ...]:
        """25 a second, the centre square of 224 pixels."""
        return (PICTURE,)

    @property
    def version(self) -> str:
        """Hash of the weights, and the method's."""
        return weights_version(locate(NAME, self.weights_folder or None))

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights (0.9 GB)."""
        self._judge = DeSync(load_synchformer(self.weights_folder or None), device)
        return self

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """One score an item; the picture goes through the network once a clip."""
        assert self._judge is not None, "call load() first"
        version, seen = self.version, dict[str, Tensor]()
        scores, rows = [], torch.full((len(items), 2, CLASSES), torch.nan)
        for row, item in enumerate(items):
            value, reason = None, unseen(item, PICTURE.key, check_length)
            if not reason:
                rows[row] = self._logits(item, seen)
                value = float(desync_s(offsets_s(rows[row : row + 1])))
            scores.append(Score.make(item.candidate_id, "synchformer", version, "desync_s", value, reason))
        return Judgement(scores, {"offset_logits": rows})

    def _logits(self, item: ScoreItem, seen: dict[str, Tensor]) -> Tensor:
        """Logits (2, 21); `seen` keeps the picture's tokens."""
        judge, seconds = self._judge, item.evaluated_s
        assert judge is not None
        tokens = once_a_clip(item, seen, lambda: judge.see(item.frames[PICTURE.key], seconds))
        heard = judge.hear(item.sound, item.sample_rate, seconds)
        return judge.logits(tokens[None], heard[None])[0].cpu()
