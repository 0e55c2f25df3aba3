"""IB-score: how well a sound fits what is seen, by the cosine of ImageBind's embeddings (arXiv 2305.05665).

Raw cosines; tables of the field show them times 100. The weights, `imagebind_huge.pth`, are CC-BY-NC-SA 4.0:
non-commercial use only. Only their halves for sound and picture are loaded (2.9 GB).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from pydantic import PrivateAttr
from torch import Tensor

from foleytune.networks.imagebind import IMAGE
from foleytune.published.hashes import weights_version
from foleytune.published.imagebind import FPS, NAME, IBScore, check_length, load_imagebind, similarity
from foleytune.published.weights import locate
from foleytune.records import Score
from foleytune.scorers import Judgement, NetworkScorer, ScoreItem
from foleytune.scorers._pictured import once_a_clip, unseen
from foleytune.streams import FrameStream, bicubic

PICTURE = bicubic(FPS, IMAGE, crop=False)


class ImageBind(NetworkScorer):
    """`weights_folder` as for models. Higher is better; the sound is heard whole, whatever is evaluated.

    Unscored: silence, no picture, under 4 s evaluated, a picture shorter than what is evaluated, a sound
    under 25 ms.
    """

    weights_folder: str = ""

    needs: ClassVar[frozenset[str]] = frozenset({"audio", "video"})
    dimensions: ClassVar[tuple[str, ...]] = ("similarity",)
    higher_is_better: ClassVar[dict[str, bool]] = {"similarity": True}
    embeddings: ClassVar[tuple[str, ...]] = ("audio", "video")  # (B, 1024): about 20 and at most 1 long

    _judge: IBScore | None = PrivateAttr(default=None)

    @property
    def streams(self) -> tuple[FrameStream, ...]:
        """One each 2 s, 224 pixels on the short side, uncropped."""
        return (PICTURE,)

    @property
    def version(self) -> str:
        """Hash of the weights, and the method's."""
        return weights_version(locate(NAME, self.weights_folder or None))

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights."""
        self._judge = IBScore(load_imagebind(self.weights_folder or None), device)
        return self

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """One score an item; the picture goes through the network once a clip."""
        assert self._judge is not None, "call load() first"
        version, seen = self.version, dict[str, Tensor]()
        audio, video = (torch.full((len(items), self._judge.embed_dim), torch.nan) for _ in range(2))
        scores = []
        for row, item in enumerate(items):
            value, reason = None, unseen(item, PICTURE.key, check_length)
            if not reason:
                video[row] = self._see(item, seen)
                audio[row] = self._judge.hear(item.sound, item.sample_rate).cpu()
                value = float(similarity(video[row], audio[row]))
            scores.append(Score.make(item.candidate_id, "imagebind", version, "similarity", value, reason))
        return Judgement(scores, {"audio": audio, "video": video})

    def _see(self, item: ScoreItem, seen: dict[str, Tensor]) -> Tensor:
        judge = self._judge
        assert judge is not None
        return once_a_clip(item, seen, lambda: judge.see(item.frames[PICTURE.key], item.evaluated_s).cpu())
