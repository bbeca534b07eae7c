r"""The published word tokenizer: `re.findall` with one pattern, a vocabulary by count.

Tokens are `\s+|[A-Za-z0-9_]+|[^\w\s]`: runs of white space, ASCII words, single signs. Characters that none
of the three matches (letters beyond ASCII) are skipped, as `re.findall` skips them. Python's own `re` is
used, not the `tokenizers` library's: the two disagree on 12,907 code points for `\w` and `\s`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer

from loopscope.data.tokenizers.base import AbstractTokenizer

PATTERN = r"\s+|[A-Za-z0-9_]+|[^\w\s]"
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
UNKNOWN = 3
STRETCH = 2**16
"""Characters whose tokens are looked up at a time: 20.8 MB/s a core, against 18.6 for a megabyte at once."""
_SPACE, _WORD = re.compile(r"\s").match, re.compile(r"[A-Za-z0-9_]").match


class _Ids(dict[str, int]):
    """Words to ids; a word that is not there is unknown. Looked up without a call into Python."""

    def __missing__(self, word: str) -> int:
        return UNKNOWN


class WordTokenizer(AbstractTokenizer):
    """A vocabulary of words; everything else is `<unk>`."""

    kind = "word"

    def __init__(self, itos: Sequence[str], pattern: str = PATTERN) -> None:
        if len(set(itos)) != len(itos) or tuple(itos[:4]) != SPECIAL:
            raise ValueError(
                f"a word vocabulary starts with {', '.join(SPECIAL)} and names every entry once; "
                f"this one has {len(itos)} entries, {len(set(itos))} different, and starts {list(itos[:4])}"
            )
        self.itos = tuple(itos)
        self.pattern = pattern
        self._find = re.compile(pattern).findall
        self._ids = _Ids({token: index for index, token in enumerate(self.itos)})

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int, min_count: int = 2) -> "WordTokenizer":
        """The most frequent words of a stream of text, ties in the order of their characters.

        Args:
            texts: pieces of one text, cut anywhere.
            vocabulary: entries in all, the four special ones included.
            min_count: words that occur less often get no entry.
        """
        counts: Counter[str] = Counter()
        splitter = cls(SPECIAL)
        for part in splitter.parts(texts):
            counts.update(splitter._find(part))
        ranked = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
        common = [word for word, count in ranked if count >= min_count]
        return cls([*SPECIAL, *common[: vocabulary - len(SPECIAL)]])

    @property
    def vocabulary_size(self) -> int:
        return len(self.itos)

    def encode(self, text: str) -> Integer[np.ndarray, " tokens"]:
        ids = self._ids.__getitem__
        found = [
            np.fromiter(map(ids, tokens), dtype=np.uint32, count=len(tokens))
            for tokens in map(self._find, self._short(text))
        ]
        return np.concatenate(found) if found else np.empty(0, dtype=np.uint32)

    def _short(self, text: str) -> Iterator[str]:
        """The text in stretches whose tokens fit the cache, cut where no token is."""
        if self.pattern != PATTERN:  # `cut` knows the published rule
            yield text
            return
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
        return "".join(self.itos[index] for index in ids)

    def cut(self, text: str) -> int:
        """Up to a run of spaces or of word characters that the next piece may continue."""
        for run in (_SPACE, _WORD):
            start = len(text)
            while start and run(text[start - 1]):
                start -= 1
            if start < len(text):
                return start
        return len(text)

    def to_json(self) -> Mapping[str, Any]:
        return {"pattern": self.pattern, "itos": list(self.itos)}
