"""CLIP's tokenizer as OpenCLIP runs it: cleaned lower-case text to 77 ids, padded with 0.

`transformers` pads with the end token and a mask instead; that would change MMAudio, which reads the states
of the padding.
"""

from __future__ import annotations

import gzip
import html
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files

import ftfy
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import Tensor

from foleypref.published.text_tokens import id_rows

NUM_TOKENS = 77
VOCAB_SIZE = 49408
END_OF_WORD = "</w>"
START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"  # each digit is a word
MERGES = "data/clip_merges.txt.gz"  # the 48,894 that CLIP uses; MIT, see data/NOTICE

Merges = list[tuple[str, str]]


class ClipTokenizer:
    """Converts text to CLIP's ids by a byte-level vocabulary and merges. Raises ValueError if they differ."""

    def __init__(self, vocab: dict[str, int], merges: Merges) -> None:
        lost = [first + second for first, second in merges if first + second not in vocab]
        if lost:
            raise ValueError(f"{len(lost)} merges make no entry of the vocabulary, first {lost[:3]}")
        self.vocab_size = len(vocab)
        self.start, self.end = vocab[START], vocab[END]
        self._words = Tokenizer(models.BPE(vocab=vocab, merges=merges, end_of_word_suffix=END_OF_WORD))
        self._words.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return 77 ids per text: start, words, end, then 0; a text too long is cut before its end."""
        words = [self._words.encode(clean(text)).ids[: NUM_TOKENS - 2] for text in texts]
        return id_rows([[self.start, *ids, self.end] for ids in words], NUM_TOKENS, pad=0)


def clean(text: str) -> str:
    """Mend mis-decoded characters, undo HTML entities (twice), collapse spaces and lower the case."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


@lru_cache(maxsize=1)
def clip_tokenizer() -> ClipTokenizer:
    """Return the tokenizer of OpenAI's CLIP, which most OpenCLIP models use, DFN5B's included."""
    packed = files("foleypref.published").joinpath(MERGES).read_bytes()
    pairs = [line.split(" ") for line in gzip.decompress(packed).decode("utf-8").splitlines()[1:]]
    tokenizer = ClipTokenizer(*plain_vocabulary([(first, second) for first, second in pairs]))
    assert tokenizer.vocab_size == VOCAB_SIZE
    return tokenizer


def plain_vocabulary(merges: Merges) -> tuple[dict[str, int], Merges]:
    """Number the tokens as CLIP does: 256 bytes, the same ending a word, the merges in order, start, end."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = range(256, 256 + 256 - len(shown))  # stand for the bytes that have no printed form
    symbols = [chr(n) for n in (*shown, *hidden)]
    tokens = [*symbols, *(s + END_OF_WORD for s in symbols), *(a + b for a, b in merges), START, END]
    return {token: index for index, token in enumerate(tokens)}, merges
