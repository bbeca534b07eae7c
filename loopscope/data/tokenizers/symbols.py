"""The symbols of a task as tokens: words between white space, nothing learned, nothing unknown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Integer

from loopscope.data.tokenizers.base import AbstractTokenizer


class SymbolTokenizer(AbstractTokenizer):
    """Tokenizer of a task: ids are places in a list of symbols. Text that holds anything else is refused."""

    kind = "symbols"

    def __init__(self, symbols: Sequence[str]) -> None:
        if len(set(symbols)) != len(symbols) or any(symbol.split() != [symbol] for symbol in symbols):
            raise ValueError(f"symbols are {list(symbols)}; each must be one word, and named once")
        self.symbols = tuple(symbols)
        self._ids = {symbol: index for index, symbol in enumerate(self.symbols)}

    @property
    def vocabulary_size(self) -> int:
        return len(self.symbols)

    def encode(self, text: str) -> Integer[np.ndarray, " tokens"]:
        """Return the ids of a text of symbols with white space between them.

        Raises:
            ValueError: a word that is none of them; names it.
        """
        words = text.split()
        if strange := [word for word in words if word not in self._ids]:
            raise ValueError(
                f"{strange[0]!r} is no symbol of this task; write its symbols with spaces between them: "
                f"{' '.join(self.symbols[:40])}"
            )
        return np.asarray([self._ids[word] for word in words], dtype=np.uint32)

    def decode(self, ids: Iterable[int | np.integer]) -> str:
        """Return symbols with spaces between them; an id that the task does not use is shown as `<id>`."""
        known = self.symbols
        return " ".join(known[index] if 0 <= index < len(known) else f"<{int(index)}>" for index in ids)

    def cut(self, text: str) -> int:
        """Return the place after the last white space: what follows may go on."""
        return next((index for index in range(len(text), 0, -1) if text[index - 1].isspace()), 0)

    def to_json(self) -> Mapping[str, Any]:
        return {"symbols": list(self.symbols)}
