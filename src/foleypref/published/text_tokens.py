"""Byte-level tokens of RoBERTa and GPT-2, from the `vocab.json` and `merges.txt` that both publish.

Trap: without its files, RobertaTokenizer of `transformers` 5 is an empty tokenizer that gives every text the
same two ids, without an error. Here the files are read, and counted, or there is a ValueError.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from foleypref.published.hub_files import hub_file
from foleypref.published.places import MissingWeights, hub_cache, weights_folder

FILES = ("vocab.json", "merges.txt")


@dataclass(frozen=True)
class Vocabulary:
    """A published vocabulary: where it lies, how large it is, what is one token wherever it stands."""

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
    """Text to the ids of a byte-level vocabulary, nothing added before or after it."""

    def __init__(
        self, vocab: dict[str, int], merges: list[tuple[str, str]], special: tuple[str, ...]
    ) -> None:
        """Raises ValueError if vocabulary, merges and special tokens do not belong together."""
        lost = [first + second for first, second in merges if first + second not in vocab]
        lost += [token for token in special if token not in vocab]
        if lost:
            raise ValueError(
                f"{len(lost)} merges and special tokens are no entry of the vocabulary, first {lost[:3]}; "
                f"take {' and '.join(FILES)} from the same place"
            )
        self.vocab = vocab
        self._words = Tokenizer(models.BPE(vocab=vocab, merges=merges))
        self._words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        # as both tokenizers have it: the mask takes the space before it along
        self._words.add_special_tokens(
            [AddedToken(t, lstrip=t == "<mask>", normalized=False) for t in special]
        )

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        return list(self._words.encode(text, add_special_tokens=False).ids)


def load_tokens(wanted: Vocabulary, folder: Path | str | None = None) -> ByteLevelTokens:
    """The tokens of a published vocabulary, from the weights folder or the hub's cache on this disk.

    Raises MissingWeights for a file that is not there, ValueError for one that does not read or is another's.
    """
    found = [_find(wanted, name, folder) for name in FILES]
    vocab_path, merges_path = found
    if vocab_path is None or merges_path is None:
        missing = " and ".join(name for name, path in zip(FILES, found) if path is None)
        root = weights_folder(folder)
        raise MissingWeights(
            f"the vocabulary of {wanted.name} is missing: found no {missing} in {root / wanted.name} or "
            f"{hub_cache()}; save {' and '.join(FILES)} of https://huggingface.co/{wanted.repos[0]} in "
            f"{root / wanted.name}, or `hf download {wanted.repos[0]} {' '.join(FILES)}`"
        )
    try:
        vocab = json.loads(vocab_path.read_text("utf-8"))
        lines = merges_path.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ValueError(f"the vocabulary of {wanted.name} does not read ({error}); get it again") from error
    if not isinstance(vocab, dict) or len(vocab) != wanted.size:
        raise ValueError(
            f"{vocab_path} has {len(vocab)} entries, {wanted.name} has {wanted.size}; "
            f"get it from https://huggingface.co/{wanted.repos[0]}"
        )
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    merges = [(pair[0], pair[-1]) for pair in pairs]
    return ByteLevelTokens(vocab, merges, wanted.special)


def _find(wanted: Vocabulary, name: str, folder: Path | str | None) -> Path | None:
    own = weights_folder(folder) / wanted.name / name
    if own.is_file():
        return own
    return next((path for repo in wanted.repos if (path := hub_file(repo, name, folder))), None)
