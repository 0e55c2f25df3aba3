"""The base of the judges of sound and text: embeddings of both, one similarity per item.

Silence has an embedding, as in the benchmarks' distances between sets, but no score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from pydantic import PrivateAttr
from torch import Tensor

from foleypref.published.hashes import weights_version
from foleypref.published.hub_files import weights_path
from foleypref.published.registry import files_for
from foleypref.scoring.scorers import (
    Judgement,
    ScoreItem,
    Scorer,
    Unscored,
    Value,
    loaded,
    unscored_reason,
)

if TYPE_CHECKING:
    from foleypref.published.htsat import LoadedClap

ROWS_AT_ONCE = 8


@contextmanager
def packages(scorer: str) -> Iterator[None]:
    """Turn the failed import of a package into a ValueError that says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(
            f"scorers: {scorer!r} needs the package {error.name!r}; install it with "
            "`pip install 'foleypref[scorers]'` or by its name"
        ) from error


class CaptionScorer(Scorer):
    """Base of the scorers that embed a sound and its caption and compare the two.

    `weights` is a file, "" the published one; `weights_folder` as for models. Unscored: silence, which has an
    embedding as in the benchmarks, and items without a caption.
    """

    weights: str = ""
    weights_folder: str = ""

    needs: ClassVar[frozenset[str]] = frozenset({"audio", "text"})
    higher_is_better: ClassVar[dict[str, bool]] = {"similarity": True}
    embeddings: ClassVar[tuple[str, ...]] = ("audio",)
    width: ClassVar[int]  # of its embeddings

    _judge: LoadedClap | None = PrivateAttr(default=None)

    @property
    def version(self) -> str:
        """Hash of the weights, and the method's."""
        published = files_for(self.part_name())[0].name
        return weights_version(weights_path(self.weights, published, self.weights_folder or None))

    def judge(self, items: Sequence[ScoreItem]) -> Judgement:
        """Compare each sound with its caption."""
        judge = loaded(self._judge)

        def embed_audio(heard: list[ScoreItem]) -> Tensor:
            waves = [judge.wave(item.sound, item.sample_rate, item.seconds) for item in heard]
            chunks = torch.stack(waves).split(ROWS_AT_ONCE)
            return torch.cat([judge.model.embed_audio(x.to(judge.device)).float().cpu() for x in chunks])

        embedders = Embedders(self.width, embed_audio, judge.embed_texts, self.similarity)
        values, rows = compare_captions(items, embedders)
        return Judgement({"similarity": values}, {"audio": rows})

    def similarity(self, sound: Tensor, caption: Tensor) -> Tensor:
        """Return the cosine of two embeddings (width,) of length 1."""
        return torch.dot(sound, caption)


class Embedders(NamedTuple):
    """The two towers of a network of sound and text, and how their embeddings compare."""

    width: int
    audio: Callable[[list[ScoreItem]], Tensor]  # -> (B, width)
    text: Callable[[list[str]], Tensor]  # -> (B, width)
    similarity: Callable[[Tensor, Tensor], Tensor | float]  # of two vectors


@torch.inference_mode()
def compare_captions(items: Sequence[ScoreItem], embed: Embedders) -> tuple[list[Value], Tensor]:
    """Return a similarity per item and the sounds' embeddings (B, width); each text is embedded once.

    Silence and items without a caption are unscored; a sound without samples has a row of NaN.
    """
    rows = torch.full((len(items), embed.width), torch.nan)
    heard = [row for row, item in enumerate(items) if item.wave.size]
    if heard:
        rows[heard] = embed.audio([items[row] for row in heard])
    reasons = [unscored_reason(item, CaptionScorer.needs) for item in items]
    texts = sorted({item.prompt for item, reason in zip(items, reasons) if not reason})
    vectors = dict(zip(texts, embed.text(texts))) if texts else {}
    values: list[Value] = [
        Unscored(reason) if reason else float(embed.similarity(row, vectors[item.prompt]))
        for item, row, reason in zip(items, rows, reasons)
    ]
    return values, rows
