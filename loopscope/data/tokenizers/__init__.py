"""Tokenizers by name, and back from their JSON. A new one is a file here and a line in each of its functions."""

import json
from collections.abc import Iterable
from pathlib import Path

from loopscope.data.config import TokenizerConfig
from loopscope.data.tokenizers.base import AbstractTokenizer
from loopscope.data.tokenizers.bpe import PIECES, BPETokenizer
from loopscope.data.tokenizers.byte import ByteTokenizer
from loopscope.data.tokenizers.file import FileTokenizer, file_hash, read_tokenizer_file
from loopscope.data.tokenizers.pattern_time import check_patterns, panics_in_words, patterns_in
from loopscope.data.tokenizers.symbols import SymbolTokenizer
from loopscope.data.tokenizers.word import WordTokenizer
from loopscope.results.layout import TOKENIZER

__all__ = [
    "AbstractTokenizer",
    "BPETokenizer",
    "ByteTokenizer",
    "FileTokenizer",
    "SymbolTokenizer",
    "WordTokenizer",
    "file_hash",
    "load_tokenizer",
    "tokenizer_from_text",
    "train_tokenizer",
]


def train_tokenizer(config: TokenizerConfig, texts: Iterable[str], end: bool = False) -> AbstractTokenizer:
    """Make the tokenizer that a config names from a stream of text.

    Args:
        end: have a token that ends documents, where the kind can do without.
    """
    match config.kind:
        case "word":
            return WordTokenizer.train(texts, config.vocabulary, config.min_count)
        case "bpe":
            return BPETokenizer.train(texts, config.vocabulary, end)
        case "bytes":
            return ByteTokenizer()
        case "file":
            assert config.path is not None, "the config checks that a file has a path"
            text = read_tokenizer_file(config.path)
            try:
                return FileTokenizer(text)
            except ValueError as error:
                raise ValueError(f"data.tokenizer.path {config.path!r}: {error}") from None


def load_tokenizer(path: str | Path) -> AbstractTokenizer:
    """Read a `tokenizer.json`: one that Loopscope wrote, or any of the Hugging Face `tokenizers` format.

    Raises:
        ValueError: missing, damaged, or of a kind that is not known.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist; give the folder of a run or model that has a {TOKENIZER}")
    try:
        return tokenizer_from_text(path.read_text(encoding="utf-8"))
    except Exception as error:  # the `tokenizers` library raises bare Exceptions
        raise ValueError(
            f"{path} is not a tokenizer of Loopscope or the tokenizers library: {error}"
        ) from error


def tokenizer_from_text(text: str) -> AbstractTokenizer:
    """Rebuild a tokenizer from `AbstractTokenizer.to_text`, or from a Hugging Face tokenizer's JSON."""
    data = json.loads(text)
    if "kind" not in data and "model" in data:
        return FileTokenizer(text)
    match data["kind"]:
        case "word":
            return WordTokenizer(data["itos"], data["pattern"])
        case "bpe":
            from tokenizers import Tokenizer

            check_patterns(sorted(set(patterns_in(data["tokenizer"])) - {PIECES}))
            with panics_in_words():
                return BPETokenizer(Tokenizer.from_str(json.dumps(data["tokenizer"])))
        case "bytes":
            return ByteTokenizer()
        case "symbols":
            return SymbolTokenizer(data["symbols"])
        case "file":
            return FileTokenizer(json.dumps(data["tokenizer"], ensure_ascii=False))
        case other:
            raise ValueError(f"tokenizer kind {other!r} is not known; known: word, bpe, bytes, file, symbols")
