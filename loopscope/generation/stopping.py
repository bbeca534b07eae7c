"""When a text ends: its number of tokens, a token that means the end, or a string, wherever its tokens meet."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from loopscope.generation.streaming import IncrementalDecoder, Tokenizer

Reason = Literal["length", "eos", "stop"]

MOST_NEW_TOKENS = 1_000_000
"""Of one text: keys and values of all of them must fit in memory."""


@dataclass(frozen=True)
class Stopping:
    """Settings of what ends a text.

    Attributes:
        new_tokens: at most so many.
        eos: token ids that end a text. They are among its tokens and not in its text.
        stop: strings that end a text. The text ends before them; their tokens are among its tokens.
    """

    new_tokens: Any
    eos: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()

    def check(self, tokenizer: Any) -> None:
        """Raise ValueError for settings that make no sense, or strings without a tokenizer to find them with."""
        count = self.new_tokens
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"new_tokens is {count!r}; it must be a whole number from 1 up")
        if count > MOST_NEW_TOKENS:
            raise ValueError(
                f"new_tokens is {count}; it must be a whole number from 1 to {MOST_NEW_TOKENS:,}"
            )
        for text in self.stop:
            if not isinstance(text, str) or not text:
                raise ValueError(f"stop holds {text!r}; every stop string needs at least one character")
        if self.stop and tokenizer is None:
            raise ValueError(
                f"stop is {self.stop!r}, but there is no tokenizer to find it with; pass tokenizer=, or stop at "
                "token ids with eos="
            )


class Ending:
    """One row's text so far, and whether it has ended."""

    def __init__(self, stopping: Stopping, tokenizer: Tokenizer | None, prompt: Iterable[int]) -> None:
        self._stopping = stopping
        self._stream = None if tokenizer is None else IncrementalDecoder(tokenizer, prompt)
        self._strings = StopStrings(stopping.stop)
        self._count = 0

    def push(self, token: int) -> tuple[str, Reason | None]:
        """Take a token; return the text that is certain now, and why the row ends with this token, if it does."""
        self._count += 1
        if token in self._stopping.eos:
            return self._last("")[0], "eos"
        piece, hit = self._strings.push("" if self._stream is None else self._stream.push(token))
        if hit:
            return piece, "stop"
        if self._count < self._stopping.new_tokens:
            return piece, None
        text, hit = self._last(piece)
        return text, "stop" if hit else "length"

    def _last(self, piece: str) -> tuple[str, bool]:
        """The piece and whatever is held back, at the end of the text."""
        rest, hit = self._strings.push("" if self._stream is None else self._stream.flush())
        return piece + rest + ("" if hit else self._strings.flush()), hit


class StopStrings:
    """Finds strings in a text that comes in pieces; holds back what may turn out to be the start of one."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = tuple(strings)
        self._pending = ""

    def push(self, piece: str) -> tuple[str, bool]:
        """Take a piece; return text that cannot be part of a stop string, and whether one was found.

        A stop string and what follows it are dropped.
        """
        text = self._pending + piece
        starts = [start for start in (text.find(string) for string in self._strings) if start >= 0]
        if starts:
            self._pending = ""
            return text[: min(starts)], True
        keep = max((_overlap(text, string) for string in self._strings), default=0)
        self._pending = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def flush(self) -> str:
        """Return the text that was held back: it was no stop string after all."""
        pending, self._pending = self._pending, ""
        return pending


def _overlap(text: str, string: str) -> int:
    """The longest end of `text` that `string` begins with."""
    for length in range(min(len(text), len(string) - 1), 0, -1):
        if text.endswith(string[:length]):
            return length
    return 0
