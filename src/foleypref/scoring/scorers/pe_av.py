"""PE-AV: how sure Meta's model is that a sound belongs to its caption, and with `video` to its picture.

A permissive stand-in for CLAP and ImageBind: code and weights are Apache-2.0 (facebook/pe-av-* of the hub).
`pe_av-small`, `-base`, `-large`, each also `-16-frame`. Scores are logits of one pair, not cosines. `video`
needs timm and the torchvision that fits the installed torch; sound and caption need neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import PrivateAttr
from torch import Tensor

from foleypref.media.frame_rules import shown_pixels
from foleypref.media.streams import FrameStream
from foleypref.published.hashes import file_hashes
from foleypref.published.hub_files import hub_folder
from foleypref.scoring.scorers import Judgement, ScoreItem, Scorer, Unscored, Value, loaded
from foleypref.scoring.scorers._captioned import Embedders, compare_captions, packages
from foleypref.scoring.scorers._pictured import once_per_clip, why_unseen
from foleypref.workspace.records import digest

if TYPE_CHECKING:
    from foleypref.published.pe_av import PeAv as Network

Variant = Literal["small", "base", "large", "small-16-frame", "base-16-frame", "large-16-frame"]

FPS, SIDE = 25, 336  # the original takes all frames of a file, at the file's rate


def _stretched(frame: Any, sar: Fraction | None) -> np.ndarray:
    """Stretch a decoded frame to (336, 336, 3) uint8, as torchvision's bilinear resize does."""
    image = torch.from_numpy(shown_pixels(frame, sar)).permute(2, 0, 1)[None]
    image = F.interpolate(image, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    return image[0].permute(1, 2, 0).contiguous().numpy()


PICTURE = FrameStream(f"stretched{SIDE}@{FPS}", FPS, _stretched)


class PeAv(Scorer):
    """`weights` is a folder or repository of the hub, "" facebook/pe-av-{variant}; `video` adds the picture.

    Unscored: silence, which has an embedding, and items without a caption or a picture.
    """

    variant: Variant = "large"
    weights: str = ""
    weights_folder: str = ""
    video: bool = False

    embeddings: ClassVar[tuple[str, ...]] = ("audio",)  # (B, E), not of length 1

    _network: Network | None = PrivateAttr(default=None)

    @property
    def needs(self) -> frozenset[str]:
        """Sound and caption, and the picture with `video`."""
        return frozenset({"audio", "text", *(["video"] if self.video else [])})

    @property
    def higher_is_better(self) -> dict[str, bool]:
        """True for audio_text, and with `video` for audio_video: a higher logit is a better match."""
        return dict.fromkeys(["audio_text", *(["audio_video"] if self.video else [])], True)

    @property
    def streams(self) -> tuple[FrameStream, ...]:
        """25 frames per second of 336 pixels square, with `video`."""
        return (PICTURE,) if self.video else ()

    @property
    def version(self) -> str:
        """Hash of the weights, and the method's."""
        files = sorted(self._folder.glob("*.safetensors"))
        return f"{digest(*(file_hashes(path).sha256 for path in files))[:8]}-1"

    def load(self, device: str | torch.device = "cpu") -> Self:
        """Read the weights (several GB)."""
        with packages("pe_av"):
            from foleypref.published.pe_av import load_pe_av  # transformers: seconds to import
        self._network = load_pe_av(self._folder, video=self.video).to(device)
        return self

    @torch.inference_mode()
    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Compare each sound with its caption and, if `video`, with its picture, which is embedded once."""
        network = loaded(self._network)
        embedders = Embedders(
            network.width,
            audio=lambda heard: torch.stack([network.embed_audio(x.sound, x.sample_rate) for x in heard]),
            text=lambda texts: torch.stack([network.embed_text(text) for text in texts]),
            similarity=network.audio_text,
        )
        audio_text, rows = compare_captions(items, embedders)
        values = {"audio_text": audio_text}
        if self.video:
            seen: dict[str, Tensor] = {}
            values["audio_video"] = [self._audio_video(item, row, seen) for item, row in zip(items, rows)]
        return Judgement(values, {"audio": rows})

    def _audio_video(self, item: ScoreItem, audio: Tensor, seen: dict[str, Tensor]) -> Value:
        if reason := why_unseen(item, PICTURE.key):
            return Unscored(reason)
        network, frames = loaded(self._network), item.frames[PICTURE.key]
        video = once_per_clip(item, seen, lambda: network.embed_video(frames))
        return float(network.audio_video(audio, video))

    @property
    def _folder(self) -> Path:
        return hub_folder(self.weights or f"facebook/pe-av-{self.variant}", self.weights_folder or None)
