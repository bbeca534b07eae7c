"""Any `tokenizer.json` of the Hugging Face `tokenizers` format, as it is.

A text that streams may be cut only where no token, and no rule of the tokenizer, looks across. Which places those are
is found by trying: two kinds of place are tested on probes when the tokenizer is made, and every cut is tested again
on the text around it. Tokenizers that see a text as one piece (Llama 2's: no pre-tokenizer, a mark where it begins)
have no such place: their text is encoded whole, which needs memory for all of it.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer
from tokenizers import Tokenizer

from loopscope.data.tokenizers.base import AbstractTokenizer
from loopscope.data.tokenizers.pattern_time import check_patterns, panics_in_words, patterns_in
from loopscope.results.layout import TOKENIZER

# Between two ASCII letters or digits, so that no normaliser joins what a cut parts.
_PLACES = {
    " ": re.compile(r"(?<=[A-Za-z0-9])(?= [A-Za-z0-9])"),  # before a single space
    "\n": re.compile(r"(?<=[A-Za-z0-9]\n)(?=[A-Za-z0-9])"),  # after a single newline
}
_PROBES = (
    "The quick brown fox 42 jumps\nOver 2 lazy dogs and 1999 more\nx y z\nA b\n0 1",
    "def f(a): return a\nclass B: pass\nend of it all 7\nÉcole élève café au lait\nnaïve words",
    "it is what it is\nI am the 3rd one\nWORDS IN CAPITALS AND 123456 DIGITS\nmixedCase words2 with3 digits",
)
_AROUND = 48
"""Characters on each side of a cut on which it is tested."""

KNOWN_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")
"""Tokens that end a document in the tokenizers that people use, the most telling first."""


class FileTokenizer(AbstractTokenizer):
    """A tokenizer of the Hugging Face `tokenizers` format; its JSON is kept whole, and with it the hash."""

    kind = "file"

    def __init__(self, text: str) -> None:
        """
        Args:
            text: contents of a `tokenizer.json`.

        Raises:
            ValueError: it is not one, or has a pattern that does not come to an end.
        """
        self._json = _json(text)
        check_patterns(sorted(set(patterns_in(self._json))))
        try:
            with panics_in_words():
                tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exceptions
            raise ValueError(f"not a {TOKENIZER} of the `tokenizers` format: {error}") from error
        if not tokenizer.get_vocab(with_added_tokens=True):
            raise ValueError(f"not a {TOKENIZER} that makes ids: its vocabulary is empty")
        tokenizer.no_truncation()
        tokenizer.no_padding()
        # Text is text: `<|endoftext|>` in a corpus must not become the id that ends documents.
        tokenizer.encode_special_tokens = True
        self.tokenizer = tokenizer
        added = [token["content"] for token in self._json.get("added_tokens") or ()]
        self.places = [
            pattern
            for sign, pattern in _PLACES.items()
            # Without pieces the model sees the text as one, and may join anything across a cut.
            if tokenizer.pre_tokenizer is not None
            and not any(sign in content for content in added)
            and all(self._holds(pattern, text) for text in _PROBES)
        ]

    @property
    def vocabulary_size(self) -> int:
        """One more than the largest id: some vocabularies have gaps."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def unknown_id(self) -> int | None:
        name = (self._json.get("model") or {}).get("unk_token")
        return self.tokenizer.token_to_id(name) if isinstance(name, str) else None

    @property
    def end_id(self) -> int | None:
        """That of the first of `KNOWN_ENDS` that is one of its special tokens."""
        return next((self.special[name] for name in KNOWN_ENDS if name in self.special), None)

    @property
    def special(self) -> dict[str, int]:
        """Tokens that are special, as its file says, with their ids."""
        added = self._json.get("added_tokens") or ()
        return {token["content"]: token["id"] for token in added if token.get("special")}

    @property
    def streams(self) -> bool:
        """Whether there are places where text can be cut."""
        return bool(self.places)

    def encode(self, text: str) -> Integer[np.ndarray, " tokens"]:
        return np.asarray(self._ids(text), dtype=np.uint32)

    def decode(self, ids: Iterable[int | np.integer]) -> str:
        return self.tokenizer.decode([int(index) for index in ids], skip_special_tokens=False)

    def cut(self, text: str) -> int:
        """Return the last place where a text may be cut, tested on the text around it."""
        # What follows must be known, for the test to see what the rest of the text will see.
        found = {match.start() for place in self.places for match in place.finditer(text)}
        for place in sorted((place for place in found if place <= len(text) - _AROUND), reverse=True)[:32]:
            if self._parts_agree(text[max(0, place - _AROUND) : place], text[place : place + _AROUND]):
                return place
        return 0

    def to_json(self) -> Mapping[str, Any]:
        return {"tokenizer": self._json}

    def _holds(self, pattern: re.Pattern[str], text: str) -> bool:
        return all(
            self._parts_agree(text[: match.start()], text[match.start() :])
            for match in pattern.finditer(text)
        )

    def _parts_agree(self, before: str, after: str) -> bool:
        """Whether a cut here changes neither ids nor the pieces that the model works on one by one."""
        return all(of(before) + of(after) == of(before + after) for of in (self._pieces, self._ids))

    def _pieces(self, text: str) -> list[str]:
        normalizer = self.tokenizer.normalizer
        with panics_in_words():
            normal = text if normalizer is None else normalizer.normalize_str(text)
            return [piece for piece, _ in self.tokenizer.pre_tokenizer.pre_tokenize_str(normal)]

    def _ids(self, text: str) -> list[int]:
        with panics_in_words():
            ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a {TOKENIZER} of the `tokenizers` format: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"not a {TOKENIZER} of the `tokenizers` format: it holds a {type(found).__name__}")
    return found


def read_tokenizer_file(path: str) -> str:
    """Return the contents of a tokenizer file, or of `tokenizer.json` in a folder.

    Raises:
        ValueError: there is none, or it is no text.
    """
    file = Path(path).expanduser()
    file = file / TOKENIZER if file.is_dir() else file
    if not file.is_file():
        raise ValueError(f"data.tokenizer.path {path!r}: {file} does not exist; give a {TOKENIZER}")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"data.tokenizer.path {path!r}: {file} is not UTF-8 text ({error})") from None


def file_hash(path: str) -> str:
    """Return the SHA-256 of a tokenizer file, in hexadecimal."""
    return hashlib.sha256(read_tokenizer_file(path).encode()).hexdigest()
