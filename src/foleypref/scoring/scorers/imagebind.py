"""IB-score: how well a sound fits what is seen, by the cosine of ImageBind's embeddings (arXiv 2305.05665).

Raw cosines; tables of the field show them times 100. The weights, `imagebind_huge.pth`, are CC-BY-NC-SA 4.0:
non-commercial use only. Only their halves for sound and picture are loaded (2.9 GB).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Self

import torch
from pydantic import PrivateAttr
from torch import Tensor

from foleypref.media.streams import FrameStream, bicubic
from foleypref.networks.imagebind import IMAGE
from foleypref.published.hashes import weights_version
from foleypref.published.imagebind import FPS, NAME, IBScore, check_length, load_imagebind, similarity
from foleypref.published.places import locate
from foleypref.scoring.scorers import Judgement, ScoreItem, Scorer, loaded, values_of
from foleypref.scoring.scorers._pictured import forget_all_but_last, once_per_clip, why_unseen

PICTURE = bicubic(FPS, IMAGE, crop=False)  # a frame every 2 s, 224 pixels on the short side


class ImageBind(Scorer):
    """`weights_folder` as for models. It hears the whole sound, not only the evaluated window.

    Unscored: silence, no picture, an evaluated window under 4 s or longer than the picture, a sound under
    25 ms.
    """

    weights_folder: str = ""

    needs: ClassVar[frozenset[str]] = frozenset({"audio", "video"})
    streams: ClassVar[tuple[FrameStream, ...]] = (PICTURE,)
    higher_is_better: ClassVar[dict[str, bool]] = {"similarity": True}
    embeddings: ClassVar[tuple[str, ...]] = ("audio", "video")  # (B, 1024): about 20 and at most 1 long

    _judge: IBScore | None = PrivateAttr(default=None)
    _seen: dict[str, Tensor] = PrivateAttr(default_factory=dict)  # embeddings of pictures

    @property
    def version(self) -> str:
        """Hash of the weights, and the method's."""
        return weights_version(locate(NAME, self.weights_folder or None))

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights and return itself."""
        self._judge, self._seen = IBScore(load_imagebind(self.weights_folder or None), device), {}
        return self

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Embed each clip's picture once and all sounds together, and compare them."""
        judge = loaded(self._judge)
        reasons = [why_unseen(item, PICTURE.key, check_length) for item in items]
        audio, video = (torch.full((len(items), judge.embed_dim), torch.nan) for _ in range(2))
        rows = [row for row, reason in enumerate(reasons) if not reason]
        for row in rows:
            look = partial(judge.see, items[row].frames[PICTURE.key], items[row].evaluated_s)
            video[row] = once_per_clip(items[row], self._seen, look)
        forget_all_but_last(self._seen)
        if rows:
            audio[rows] = judge.hear([(items[row].sound, items[row].sample_rate) for row in rows]).cpu()
        values = values_of(reasons, similarity(video, audio).tolist())
        return Judgement({"similarity": values}, {"audio": audio, "video": video})
