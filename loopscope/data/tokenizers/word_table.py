r"""The tokens of `\s+|[A-Za-z0-9_]+|[^\w\s]` and their numbers, by array arithmetic: what `re.findall` and a dict find.

Characters become classes, changes of class become the places of tokens, and the up to 16 bytes of an ASCII token two
integers, looked up in a hash table held in arrays. The few others (longer ones, and those with characters beyond
ASCII) go through the dict one by one. Nothing is approximate: whole words are compared, not their hashes.
Memory: some 80 bytes per token of the text given at a time; and the dict, and 21 bytes × 4 to 8, per word.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import repeat

import numpy as np
from jaxtyping import Integer

PATTERN = r"\s+|[A-Za-z0-9_]+|[^\w\s]"
_TOKEN = re.compile(PATTERN)
_SPACE, _WORD, _SIGN, _SKIPPED = range(4)
_LANE = 8  # bytes of an integer
_KEY = 2 * _LANE
_MASKS = np.array([(1 << 8 * length) - 1 for length in range(_LANE + 1)], dtype="<u8")
_MIX, _MIX_HIGH = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
Places = Integer[np.ndarray, " tokens"]


@cache
def _class(character: str) -> int:
    """What Python's own `re` takes a character for: it and the `tokenizers` library's disagree."""
    if re.match(r"\s", character):
        return _SPACE
    if re.match("[A-Za-z0-9_]", character):
        return _WORD
    return _SIGN if re.match(r"[^\w\s]", character) else _SKIPPED


_ASCII_CLASSES = bytes(_class(chr(code)) for code in range(128)) + bytes([_SKIPPED]) * 128


def _split(text: str, codes: bytes) -> tuple[Places, Places, Integer[np.ndarray, " beyond"]]:
    """Starts and ends of the tokens; and the numbers of those that hold a character beyond ASCII.

    Args:
        codes: the text with one byte per character.
    """
    classes = np.frombuffer(codes.translate(_ASCII_CLASSES), dtype=np.uint8)
    beyond = np.empty(0, dtype=np.int64)
    if not text.isascii():
        points = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype="<u4")
        beyond = np.flatnonzero(points > 127)
        classes = classes.copy()
        kinds, which = np.unique(points[beyond], return_inverse=True)
        classes[beyond] = np.array([_class(chr(kind)) for kind in kinds.tolist()], dtype=np.uint8)[which]
    first = np.empty(len(classes), dtype=bool)
    first[:1] = True
    np.not_equal(classes[1:], classes[:-1], out=first[1:])
    first |= classes == _SIGN
    starts = np.flatnonzero(first)
    ends = np.append(starts, len(classes))[1:]
    if len(beyond):
        kept = classes[starts] != _SKIPPED
        starts, ends = starts[kept], ends[kept]
        holding = np.searchsorted(starts, beyond[classes[beyond] != _SKIPPED], side="right") - 1
        return starts, ends, np.unique(holding)
    return starts, ends, beyond


class WordTable:
    """A table from words to their numbers, for all tokens of a text at once."""

    def __init__(self, words: Sequence[str], absent: int) -> None:
        """
        Args:
            words: all different; a word's number is its place.
            absent: the number of every other word.
        """
        self.absent = absent
        self._numbers = {word: number for number, word in enumerate(words)}
        numbered = [
            (word, number)
            for word, number in self._numbers.items()
            if len(word) <= _KEY and word.isascii() and _TOKEN.fullmatch(word)
        ]
        width = max(2, (4 * len(numbered)).bit_length())
        self._shift, self._last = np.uint64(64 - width), 2**width - 1
        self._low, self._high = (np.zeros(2**width, dtype="<u8") for _ in range(2))
        self._number = np.full(2**width, absent, dtype=np.uint32)
        self._taken = np.zeros(2**width, dtype=bool)
        self._enter(
            [word for word, _ in numbered], np.array([number for _, number in numbered], dtype=np.uint32)
        )

    def __len__(self) -> int:
        return len(self._numbers)

    def find(self, text: str) -> tuple[Integer[np.ndarray, " tokens"], Places, Places]:
        """Return the number of every token of a text, and where each starts and ends."""
        codes = text.encode("ascii", errors="replace")
        starts, ends, beyond = _split(text, codes)
        lengths = ends - starts
        numbers = self._look_up(*_keys(codes, starts, lengths))
        others = np.flatnonzero(lengths > _KEY)
        if len(beyond):
            others = np.union1d(others, beyond)
        if len(others):
            numbers[others] = self.numbers(slices(text, starts[others], ends[others]))
        return numbers, starts, ends

    def numbers(self, words: Sequence[str]) -> Integer[np.ndarray, " words"]:
        """Return the number of each word, one by one."""
        numbers = map(self._numbers.get, words, repeat(self.absent))
        return np.fromiter(numbers, dtype=np.uint32, count=len(words))

    def _look_up(
        self, low: Integer[np.ndarray, " tokens"], high: Integer[np.ndarray, " tokens"]
    ) -> Integer[np.ndarray, " tokens"]:
        slots = self._home(low, high)
        numbers: np.ndarray = self._number[slots]
        left = np.flatnonzero((self._low[slots] != low) | (self._high[slots] != high))
        numbers[left] = self.absent
        left = left[self._taken[slots[left]]]
        slots = slots[left]
        while len(left):  # another word has the slot: what was entered later lies further on
            slots = (slots + 1) & self._last
            same = (self._low[slots] == low[left]) & (self._high[slots] == high[left])
            numbers[left[same]] = self._number[slots[same]]
            going = ~same & self._taken[slots]
            left, slots = left[going], slots[going]
        return numbers

    def _enter(self, words: Sequence[str], numbers: Integer[np.ndarray, " words"]) -> None:
        lengths = np.array(list(map(len, words)), dtype=np.int64)
        low, high = _keys("".join(words).encode("ascii"), np.cumsum(lengths) - lengths, lengths)
        left, slots = np.arange(len(words)), self._home(low, high)
        while len(left):
            free = ~self._taken[slots]
            self._number[slots[free]] = numbers[left[free]]  # of several for one slot the last has it
            settled = free & (self._number[slots] == numbers[left])
            at, entered = slots[settled], left[settled]
            self._low[at], self._high[at], self._taken[at] = low[entered], high[entered], True
            left, slots = left[~settled], (slots[~settled] + 1) & self._last

    def _home(
        self, low: Integer[np.ndarray, " tokens"], high: Integer[np.ndarray, " tokens"]
    ) -> Integer[np.ndarray, " tokens"]:
        return (((low ^ high * _MIX_HIGH) * _MIX) >> self._shift).astype(np.int64)


def slices(text: str, starts: Places, ends: Places) -> list[str]:
    """Return the text between each start and its end."""
    return [text[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def count_words(parts: Iterable[str]) -> dict[str, int]:
    """Count how often every token occurs in parts that no token crosses."""
    words: list[str] = []
    counts = np.zeros(0, dtype=np.int64)
    table = WordTable(words, absent=0)
    fresh: dict[str, int] = {}
    for part in parts:
        numbers, starts, ends = table.find(part)
        counts += np.bincount(numbers, minlength=len(words) + 1)[: len(words)]
        new = np.flatnonzero(numbers == table.absent)
        for word in slices(part, starts[new], ends[new]):
            fresh[word] = fresh.get(word, 0) + 1
        if len(fresh) > len(words):  # doubled each time, so that all the tables cost what the last does
            words += fresh
            counts = np.append(counts, list(fresh.values()))
            table, fresh = WordTable(words, absent=len(words)), {}
    return dict(zip(words, counts.tolist(), strict=True)) | fresh


def _keys(
    codes: bytes, starts: Places, lengths: Places
) -> tuple[Integer[np.ndarray, " tokens"], Integer[np.ndarray, " tokens"]]:
    """The first and the second eight bytes of every token, zeros after its end.

    No two ASCII tokens of up to 16 bytes share both: the only one that holds a zero is the zero itself.
    """
    padded = codes + bytes(_KEY)
    eight = np.ndarray((len(codes) + _LANE + 1,), dtype="<u8", buffer=padded, strides=(1,))
    low = eight[starts] & _MASKS[np.minimum(lengths, _LANE)]
    high = np.zeros(len(starts), dtype="<u8")
    longer = np.flatnonzero(lengths > _LANE)
    high[longer] = eight[starts[longer] + _LANE] & _MASKS[np.minimum(lengths[longer] - _LANE, _LANE)]
    return low, high
