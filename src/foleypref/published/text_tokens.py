"""Byte-level tokens of RoBERTa and GPT-2, from the `vocab.json` and `merges.txt` that both publish.

Trap: without its files, RobertaTokenizer of `transformers` 5 is an empty tokenizer that gives every text the
same two ids, without an error. Here a missing file or a wrong number of entries is a ValueError.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from torch import Tensor

from foleypref.published.hub_files import hub_file
from foleypref.published.places import MissingWeights, hub_cache, weights_folder

FILES = ("vocab.json", "merges.txt")


@dataclass(frozen=True)
class Vocabulary:
    """A published vocabulary: its places, its size, and the texts that are one token wherever they stand."""

    name: str  # its folder below the weights folder
    repos: tuple[str, ...]  # that have both files, the original first
    size: int
    special: tuple[str, ...]


ROBERTA = Vocabulary(
    "roberta-base",
    ("FacebookAI/roberta-base", "roberta-base", "laion/larger_clap_general"),
    50265,
    ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
)
GPT2 = Vocabulary("gpt2", ("openai-community/gpt2", "gpt2"), 50257, ("<|endoftext|>",))


class ByteLevelTokens:
    """Converts text to the ids of a byte-level vocabulary, adding nothing before or after it."""

    def __init__(
        self, vocab: dict[str, int], merges: list[tuple[str, str]], special: tuple[str, ...]
    ) -> None:
        """Raises ValueError if vocabulary, merges and special tokens do not belong together."""
        lost = [first + second for first, second in merges if first + second not in vocab]
        lost += [token for token in special if token not in vocab]
        if lost:
            raise ValueError(
                f"{len(lost)} merges and special tokens are not in the vocabulary, first {lost[:3]}; "
                f"take {' and '.join(FILES)} from the same place"
            )
        self.vocab = vocab
        self._words = Tokenizer(models.BPE(vocab=vocab, merges=merges))
        self._words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        # in both tokenizers the mask token includes the space before it
        self._words.add_special_tokens(
            [AddedToken(t, lstrip=t == "<mask>", normalized=False) for t in special]
        )

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        return list(self._words.encode(text, add_special_tokens=False).ids)


def id_rows(texts: Sequence[Sequence[int]], num_tokens: int, pad: int) -> Int[Tensor, "B T"]:
    """Return the ids of texts as rows of one length, padded at the end; no text may be longer."""
    rows = [[*ids, *[pad] * (num_tokens - len(ids))] for ids in texts]
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, num_tokens)


def load_tokens(vocabulary: Vocabulary, folder: Path | str | None = None) -> ByteLevelTokens:
    """Load the tokens of a published vocabulary from the weights folder or the hub's cache on this disk.

    Raises MissingWeights if a file is missing, ValueError if one does not read or belongs to another model.
    """
    paths = [_find(vocabulary, name, folder) for name in FILES]
    vocab_path, merges_path = paths
    if vocab_path is None or merges_path is None:
        missing = " and ".join(name for name, path in zip(FILES, paths) if path is None)
        own = weights_folder(folder) / vocabulary.name
        raise MissingWeights(
            f"the vocabulary of {vocabulary.name} is missing: found no {missing} in {own} or {hub_cache()}; "
            f"save {' and '.join(FILES)} of https://huggingface.co/{vocabulary.repos[0]} in {own}, or "
            f"`hf download {vocabulary.repos[0]} {' '.join(FILES)}`"
        )
    try:
        vocab = json.loads(vocab_path.read_text("utf-8"))
        lines = merges_path.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the vocabulary of {vocabulary.name} does not read ({error}); get it again"
        ) from error
    if not isinstance(vocab, dict) or len(vocab) != vocabulary.size:
        raise ValueError(
            f"{vocab_path} has {len(vocab)} entries, {vocabulary.name} has {vocabulary.size}; "
            f"get it from https://huggingface.co/{vocabulary.repos[0]}"
        )
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    merges = [(pair[0], pair[-1]) for pair in pairs]
    return ByteLevelTokens(vocab, merges, vocabulary.special)


def _find(vocabulary: Vocabulary, name: str, folder: Path | str | None) -> Path | None:
    own = weights_folder(folder) / vocabulary.name / name
    if own.is_file():
        return own
    return next((path for repo in vocabulary.repos if (path := hub_file(repo, name, folder))), None)
