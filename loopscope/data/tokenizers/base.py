"""What a tokenizer is here: text to ids and back, also in a stream, and a JSON form with a hash."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Integer


class AbstractTokenizer(ABC):
    """A tokenizer: text to ids and back. Two with the same `hash` give the same ids."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def vocabulary_size(self) -> int:
        """Number of ids."""

    @property
    def unknown_id(self) -> int | None:
        """The id that stands for all text which no other id does; None where there is none, and no text is lost."""
        return None

    @property
    def end_id(self) -> int | None:
        """The id that ends a document, which no text becomes; None where there is none."""
        return None

    def known_bytes(self, ids: Integer[np.ndarray, " tokens"]) -> int | None:
        """Return the bytes of UTF-8 that ids stand for, unknown ones left out; None where nobody counts them."""
        return None

    @abstractmethod
    def encode(self, text: str) -> Integer[np.ndarray, " tokens"]:
        """Return the ids of a text."""

    @abstractmethod
    def decode(self, ids: Iterable[int | np.integer]) -> str:
        """Return the text of ids. One that a model has and the tokenizer has not is a replacement sign, or nothing."""

    @abstractmethod
    def to_json(self) -> Mapping[str, Any]:
        """Return the JSON value that `load_tokenizer` rebuilds it from."""

    @abstractmethod
    def cut(self, text: str) -> int:
        """Return the longest prefix length that can be encoded before the rest of the text is known.

        encode(text[:cut]) followed by encode(text[cut:] + more) must equal encode(text + more).
        """

    def parts(self, pieces: Iterable[str]) -> Iterator[str]:
        """Yield a text in parts that no token crosses; joined they are the text."""
        waiting: list[str] = []
        size = enough = 0
        for piece in pieces:
            waiting.append(piece)
            size += len(piece)
            if size < enough:
                continue
            rest = "".join(waiting)
            if length := self.cut(rest):
                yield rest[:length]
            waiting, size = [rest[length:]], len(rest) - length
            # Where no place was found (base64, DNA: one word of megabytes), looked again when there is twice as much.
            enough = 0 if length else 2 * size
        if rest := "".join(waiting):
            yield rest

    def encode_stream(self, pieces: Iterable[str]) -> Iterator[Integer[np.ndarray, " tokens"]]:
        """Yield the ids of a text that comes in pieces, cut anywhere: equal to encoding the whole at once."""
        return map(self.encode, self.parts(pieces))

    def to_text(self) -> str:
        """Return the contents of `tokenizer.json`."""
        return json.dumps({"kind": self.kind, **self.to_json()}, ensure_ascii=False)

    @property
    def hash(self) -> str:
        """SHA-256 of the JSON form, in hexadecimal."""
        return hashlib.sha256(self.to_text().encode()).hexdigest()
