"""Bytes of UTF-8 as tokens: no training, no unknowns, 256 ids."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Integer

from loopscope.data.tokenizers.base import AbstractTokenizer


class ByteTokenizer(AbstractTokenizer):
    """Tokenizer of 256 ids: the bytes of UTF-8 themselves."""

    kind = "bytes"

    @property
    def vocabulary_size(self) -> int:
        return 256

    @property
    def end_id(self) -> int:
        """255, which is no byte of UTF-8."""
        return 255

    def encode(self, text: str) -> Integer[np.ndarray, " tokens"]:
        return np.frombuffer(text.encode("utf-8"), dtype=np.uint8)

    def decode(self, ids: Iterable[int | np.integer]) -> str:
        # A model may have more ids than there are bytes; none of UTF-8's is 255, so that one is shown as unreadable.
        return bytes(min(int(index), 255) for index in ids).decode("utf-8", errors="replace")

    def cut(self, text: str) -> int:
        return len(text)

    def to_json(self) -> Mapping[str, Any]:
        return {}
