"""What the judges of sound and text share: embeddings of both, one similarity an item.

Silence has an embedding, as in the benchmarks' distances between sets, but no score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from foleypref.scoring.scorers import Judgement, ScoreItem, is_silent
from foleypref.workspace.records import Score

ROWS_AT_ONCE = 8


@contextmanager
def packages(scorer: str) -> Iterator[None]:
    """A package that does not import becomes a ValueError that says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(
            f"scorers: {scorer!r} needs the package {error.name!r}; install it with "
            "`pip install 'foleypref[scorers]'` or by its name"
        ) from error


def in_chunks(rows: Sequence[Tensor], embed: Callable[[Tensor], Tensor], device: torch.device) -> Tensor:
    """`embed` of rows of one length, a few at once, on the CPU."""
    chunks = (rows[begin : begin + ROWS_AT_ONCE] for begin in range(0, len(rows), ROWS_AT_ONCE))
    return torch.cat([embed(torch.stack(list(chunk)).to(device)).float().cpu() for chunk in chunks])


@torch.inference_mode()
def judge_captioned(
    items: Sequence[ScoreItem],
    make: Callable[[ScoreItem, float | None, str], Score],
    width: int,
    embed_audio: Callable[[list[ScoreItem]], Tensor],
    embed_text: Callable[[list[str]], Tensor],
    similarity: Callable[[Tensor, Tensor], Tensor | float],
) -> Judgement:
    """One score and one row of `audio`, (width,), an item; each text is embedded once.

    `make(item, value, reason)` is the score; `similarity` is of two vectors. Unscored: silence, and what has
    no caption; no sound at all has no embedding.
    """
    rows = torch.full((len(items), width), torch.nan)
    heard = [row for row, item in enumerate(items) if item.wave.size]
    if heard:
        rows[heard] = embed_audio([items[row] for row in heard])
    reasons = [unscored(item) for item in items]
    texts = sorted({item.prompt for item, reason in zip(items, reasons) if not reason})
    vectors = dict(zip(texts, embed_text(texts))) if texts else {}
    scores = [
        make(item, None if reason else float(similarity(row, vectors[item.prompt])), reason)
        for item, row, reason in zip(items, rows, reasons)
    ]
    return Judgement(scores, {"audio": rows})


def unscored(item: ScoreItem) -> str:
    """Why a sound cannot be compared with its caption, or ""."""
    if is_silent(item.wave):
        return "silent"
    return "" if item.prompt.strip() else "no caption"
