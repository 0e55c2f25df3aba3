"""DeSync: seconds by which sound and picture differ, as Synchformer hears and sees it (arXiv 2401.16423).

The mean of |offset| over the first and the last 14 segments (4.8 s each), as av-benchmark has it: multiples
of 0.1 s in [0, 2]. The weights, `synchformer_state_dict.pth`, come with MMAudio, whose checkpoints are
CC-BY-NC 4.0; they state no licence themselves. MMAudio sees the video through this very network, so for its
sounds this judge is not independent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Self

import torch
from pydantic import PrivateAttr
from torch import Tensor

from foleypref.media.streams import FrameStream, bicubic
from foleypref.networks.synchformer import CLASSES
from foleypref.published.hashes import weights_version
from foleypref.published.places import locate
from foleypref.published.synchformer import (
    FPS,
    NAME,
    DeSync,
    check_length,
    desync_s,
    load_synchformer,
    offsets_s,
)
from foleypref.scoring.scorers import Judgement, ScoreItem, Scorer, loaded, values_of
from foleypref.scoring.scorers._pictured import forget_all_but_last, once_per_clip, why_unseen

PICTURE = bicubic(FPS, 224, crop=True)
PAIRS_AT_ONCE = 64  # whose tokens are held together


class Synchformer(Scorer):
    """`weights_folder` as for models. Lower is better; the signed offsets are in the embedding's argmax.

    Unscored: silence, no picture, an evaluated window under 4.8 s or longer than picture or sound.
    """

    weights_folder: str = ""

    needs: ClassVar[frozenset[str]] = frozenset({"audio", "video"})
    streams: ClassVar[tuple[FrameStream, ...]] = (PICTURE,)
    higher_is_better: ClassVar[dict[str, bool]] = {"desync_s": False}
    embeddings: ClassVar[tuple[str, ...]] = ("offset_logits",)  # (B, 2, 21) over `offset_grid`

    _judge: DeSync | None = PrivateAttr(default=None)
    _seen: dict[str, Tensor] = PrivateAttr(default_factory=dict)  # tokens of pictures

    @property
    def version(self) -> str:
        """Hash of the weights, and the method's."""
        return weights_version(locate(NAME, self.weights_folder or None))

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights (0.9 GB)."""
        self._judge, self._seen = DeSync(load_synchformer(self.weights_folder or None), device), {}
        return self

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Read each clip's picture once and sounds of one length together, and predict their offsets."""
        rows = torch.full((len(items), 2, CLASSES), torch.nan)
        reasons = [why_unseen(item, PICTURE.key, check_length) for item in items]
        by_length: dict[float, list[int]] = defaultdict(list)
        for row, (item, reason) in enumerate(zip(items, reasons)):
            if not reason:
                by_length[item.evaluated_s].append(row)
        for seconds, same in by_length.items():
            for chunk in torch.tensor(same).split(PAIRS_AT_ONCE):
                rows[chunk] = self._logits([items[row] for row in chunk], seconds)
        forget_all_but_last(self._seen)
        values = values_of(reasons, desync_s(offsets_s(rows)).tolist())
        return Judgement({"desync_s": values}, {"offset_logits": rows})

    def _logits(self, items: Sequence[ScoreItem], seconds: float) -> Tensor:
        """Return logits (B, 2, 21) of items of one evaluated length."""
        judge = loaded(self._judge)
        looks = [partial(judge.see, item.frames[PICTURE.key], seconds) for item in items]
        tokens = torch.stack([once_per_clip(item, self._seen, look) for item, look in zip(items, looks)])
        heard = judge.hear([(item.sound, item.sample_rate) for item in items], seconds)
        return judge.logits(tokens, heard).cpu()
