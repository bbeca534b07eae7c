"""Byte-level BPE, trained and run by the `tokenizers` library."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Integer
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from loopscope.data.tokenizers.base import AbstractTokenizer
from loopscope.data.tokenizers.pattern_time import panics_in_words

PIECES = r"\n+| ?[^\s]+|[^\S\n]+"
"""Words with the space before them, and runs of white space. Where white space follows a word, a piece ends whatever
comes next: a safe place to cut a stream."""

END_OF_DOCUMENT = "<|endoftext|>"
"""Ends a document, where documents are kept apart."""


class BPETokenizer(AbstractTokenizer):
    """Byte-level byte-pair encoding, trained here. Wraps a `tokenizers.Tokenizer`, whose JSON is kept whole."""

    kind = "bpe"

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.encode_special_tokens = True  # `<|endoftext|>` in a text is text
        self.tokenizer = tokenizer

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int, end: bool = False) -> "BPETokenizer":
        """Train on a stream of text and return the tokenizer. The same text gives the same merges.

        Args:
            end: have a token that ends documents, one of the vocabulary.
        """
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
            special_tokens=[END_OF_DOCUMENT] if end else [],
        )
        tokenizer.train_from_iterator(cls(tokenizer).parts(texts), trainer)
        return cls(tokenizer)

    @property
    def end_id(self) -> int | None:
        found: int | None = self.tokenizer.token_to_id(END_OF_DOCUMENT)
        return found

    @property
    def vocabulary_size(self) -> int:
        return self.tokenizer.get_vocab_size()

    def encode(self, text: str) -> Integer[np.ndarray, " tokens"]:
        with panics_in_words():
            return np.asarray(self.tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.uint32)

    def decode(self, ids: Iterable[int | np.integer]) -> str:
        return self.tokenizer.decode([int(index) for index in ids], skip_special_tokens=False)

    def cut(self, text: str) -> int:
        """Return the place before the last newline, or space after a word, that starts a run.

        A piece of the encoding always ends there.
        """
        newline, space = text.rfind("\n", 1), text.rfind(" ", 1)
        while (index := max(newline, space)) > 0:
            before = text[index - 1]
            starts_run = before != "\n" if index == newline else not before.isspace()
            if starts_run:
                return index
            if index == newline:
                newline = text.rfind("\n", 1, index)
            else:
                space = text.rfind(" ", 1, index)
        return 0

    def to_json(self) -> Mapping[str, Any]:
        return {"tokenizer": json.loads(self.tokenizer.to_str())}
