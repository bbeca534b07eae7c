r"""The published word tokenizer: `re.findall` with one pattern, a vocabulary by count.

Tokens are `\s+|[A-Za-z0-9_]+|[^\w\s]`: runs of white space, ASCII words, single signs. Characters that none
of the three matches (letters beyond ASCII) are skipped, as `re.findall` skips them. What a character is, Python's
own `re` says, not the `tokenizers` library's: the two disagree on 12,907 code points for `\w` and `\s`. Tokens of the
published pattern are found and looked up by `word_table`, others by `re.findall` and a dict.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from string import ascii_letters, digits
from typing import Any

import numpy as np
from jaxtyping import Integer

from loopscope.data.tokenizers.base import AbstractTokenizer
from loopscope.data.tokenizers.pattern_time import check_patterns
from loopscope.data.tokenizers.word_table import PATTERN, WordTable, count_words

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
UNKNOWN_ID = 3
STRETCH = 2**16
"""Characters whose tokens are looked up at a time, so that arrays fit the cache: 90 MB/s a core, against 75 for a
megabyte at once."""
_WORD = f"{ascii_letters}{digits}_"


class WordTokenizer(AbstractTokenizer):
    """Tokenizer with a vocabulary of words; everything else is `<unk>`."""

    kind = "word"

    def __init__(self, itos: Sequence[str], pattern: str = PATTERN) -> None:
        if len(set(itos)) != len(itos) or tuple(itos[:4]) != SPECIAL:
            raise ValueError(
                f"a word vocabulary starts with {', '.join(SPECIAL)} and names every entry once; "
                f"this one has {len(itos)} entries, {len(set(itos))} different, and starts {list(itos[:4])}"
            )
        self.itos = tuple(itos)
        self.pattern = pattern
        try:
            self._find = re.compile(pattern).findall
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(
                f"a word vocabulary with pattern {pattern[:80]!r}, which is none: {error}"
            ) from None
        if pattern != PATTERN:
            check_patterns([pattern], "re")

    @cached_property
    def _table(self) -> WordTable:
        return WordTable(self.itos, absent=UNKNOWN_ID)

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int, min_count: int = 2) -> "WordTokenizer":
        """Return a tokenizer of the most frequent words of a text, ties in the order of their characters.

        Args:
            texts: pieces of one text, cut anywhere.
            vocabulary: entries in all, the four special ones included.
            min_count: words that occur less often get no entry.
        """
        splitter = cls(SPECIAL)
        counts = count_words(short for part in splitter.parts(texts) for short in splitter._short(part))
        ranked = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
        common = [word for word, count in ranked if count >= min_count]
        return cls([*SPECIAL, *common[: vocabulary - len(SPECIAL)]])

    @property
    def vocabulary_size(self) -> int:
        return len(self.itos)

    @property
    def unknown_id(self) -> int:
        return UNKNOWN_ID

    @property
    def end_id(self) -> int:
        return SPECIAL.index("<eos>")

    def known_bytes(self, ids: Integer[np.ndarray, " tokens"]) -> int:
        sizes = np.array([len(word.encode("utf-8", errors="replace")) for word in self.itos])
        sizes[: len(SPECIAL)] = 0
        return int(sizes[ids].sum())

    def encode(self, text: str) -> Integer[np.ndarray, " tokens"]:
        if self.pattern == PATTERN:
            parts = [self._table.find(short)[0] for short in self._short(text)]
        else:
            parts = [self._table.numbers(self._find(text))]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint32)

    def _short(self, text: str) -> Iterator[str]:
        """The text in stretches whose tokens fit the cache, cut where no token is."""
        start, length = 0, STRETCH
        while start < len(text):
            stretch = text[start : start + length]
            whole = len(stretch) if start + length >= len(text) else self.cut(stretch)
            if whole == 0:  # one run from end to end
                length *= 2
                continue
            yield stretch[:whole]
            start, length = start + whole, STRETCH

    def decode(self, ids: Iterable[int | np.integer]) -> str:
        return "".join(self.itos[index] if index < len(self.itos) else "\ufffd" for index in ids)

    def cut(self, text: str) -> int:
        """Return the place before a run of spaces or of word characters that the next piece may continue."""
        for before in (text.rstrip(), text.rstrip(_WORD)):
            if len(before) < len(text):
                return len(before)
        return len(text)

    def to_json(self) -> Mapping[str, Any]:
        return {"pattern": self.pattern, "itos": list(self.itos)}
