"""From a corpus to token files, once: the second call opens what the first one made.

Everything is built in a folder under another name and renamed when it is whole, so a killed ingestion
leaves nothing that could be taken for complete, and two processes at once do not disturb each other.
Text streams through: memory does not grow with the corpus.
"""

import json
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from loopscope.data.config import DataConfig
from loopscope.data.corpora import AbstractCorpus, build_corpus, cap_bytes, cap_documents
from loopscope.data.document_end import document_end, encoded_documents
from loopscope.data.document_windows import DocumentWindows, documents_in
from loopscope.data.ingestion_display import IngestionDisplay
from loopscope.data.lost_text import LostText, lost_text
from loopscope.data.token_folder import token_folder
from loopscope.data.tokenfile import TokenFile, open_tokens, write_tokens
from loopscope.data.tokenizers import (
    AbstractTokenizer,
    FileTokenizer,
    load_tokenizer,
    train_tokenizer,
)
from loopscope.data.windows import Windows
from loopscope.results.faults import concerning
from loopscope.results.layout import LOCK, TOKENIZER
from loopscope.results.lock import abandoned, hold

TRAIN, VALIDATION = "train.tokens", "validation.tokens"
SOURCE = "source.json"
"""What the text was and where it came from: dataset, commit, documents, bytes."""


@dataclass(frozen=True)
class PreparedData:
    """A corpus as token files, with the tokenizer that made them: opens windows to train and validate on."""

    train: TokenFile
    validation: TokenFile
    tokenizer: AbstractTokenizer
    directory: Path
    within: bool = False  # windows do not run on into the next document

    @property
    def tokenizer_text(self) -> str:
        """The contents of its `tokenizer.json`, as it was written."""
        return (self.directory / TOKENIZER).read_text(encoding="utf-8")

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of the validation text over its tokens."""
        return self.validation.bytes_per_token

    @cached_property
    def lost(self) -> LostText:
        """What of the validation text its tokens do not hold."""
        return lost_text(self.tokenizer, self.validation.tokens, self.validation.bytes)

    def training_windows(self, sequence: int, stride: int | None = None) -> Windows:
        """Return the windows to train on."""
        if self.within:
            return DocumentWindows(self.train, sequence, self.end)
        return Windows(self.train, sequence, stride)

    def validation_windows(self, sequence: int) -> Windows:
        """Return the windows to validate on: none overlap."""
        if self.within:
            return DocumentWindows(self.validation, sequence, self.end)
        return Windows(self.validation, sequence)

    @cached_property
    def source(self) -> dict[str, Any]:
        """What is known of where the text comes from, as it was ingested; empty of what an earlier version ingested."""
        try:
            found: dict[str, Any] = json.loads((self.directory / SOURCE).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # a note: the tokens are checked by themselves
            return {}
        return found

    @property
    def end(self) -> int:
        """The id that ends a document."""
        return int(self.train.tokens[0])


def prepare(config: DataConfig, progress: bool = True) -> PreparedData:
    """Ingest a corpus into token files, or open what an earlier call ingested.

    Args:
        progress: show it (on standard error).

    Raises:
        ValueError: no such file or dataset, no text, or a token file that is damaged.
    """
    corpus = build_corpus(config)
    directory = token_folder(config, corpus)
    if not directory.is_dir():
        _ingest(config, corpus, directory, progress)
    return _opened_as(config, directory)


def _opened_as(config: DataConfig, directory: Path) -> PreparedData:
    return replace(open_prepared(directory), within=config.windows == "within")


def prepared_before(config: DataConfig) -> PreparedData | None:
    """Open what an earlier call of `prepare` ingested; None where there is nothing yet. Writes nothing.

    Raises:
        ValueError: no such file or dataset, or a token file that is damaged.
    """
    directory = token_folder(config, build_corpus(config))
    return _opened_as(config, directory) if directory.is_dir() else None


def open_prepared(directory: str | Path) -> PreparedData:
    """Open a folder that `prepare` made.

    Raises:
        ValueError: something is missing, damaged, or made with another tokenizer.
    """
    directory = Path(directory)
    tokenizer = load_tokenizer(directory / TOKENIZER)
    return PreparedData(
        train=open_tokens(directory / TRAIN, tokenizer.hash),
        validation=open_tokens(directory / VALIDATION, tokenizer.hash),
        tokenizer=tokenizer,
        directory=directory,
    )


def _ingest(config: DataConfig, corpus: AbstractCorpus, directory: Path, progress: bool) -> None:
    for remark in corpus.remarks():
        warnings.warn(remark, stacklevel=4)
    parent = directory.parent
    parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(parent)
    building = Path(tempfile.mkdtemp(prefix=".building-", dir=parent))
    try:
        with (
            concerning(directory, building),
            hold(building),
        ):  # so that others can tell a killed ingestion from one that is at work
            _build(config, corpus, building, progress)
            with suppress(OSError):  # its own from here on, and it has to go before the folder gets its name
                (building / LOCK).unlink()
        try:
            building.rename(directory)
        except OSError:
            if not directory.is_dir():  # otherwise another process was first, with the same result
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _build(config: DataConfig, corpus: AbstractCorpus, building: Path, progress: bool) -> None:
    def train() -> Iterator[str]:
        return cap_bytes(corpus.train(), config.max_bytes)

    def validation() -> Iterator[str]:
        return cap_bytes(corpus.validation(), config.max_validation_bytes)

    def documents(of_validation: bool) -> Iterator[str | None]:
        limit = config.max_validation_bytes if of_validation else config.max_bytes
        return cap_documents(corpus.documents(of_validation), limit)

    ended = config.documents == "ended"
    size = corpus.train_bytes()
    if config.max_bytes is not None:
        size = config.max_bytes if size is None else min(size, config.max_bytes)
    with IngestionDisplay(config.corpus, progress) as display:
        if config.tokenizer.kind in ("bytes", "file"):  # nothing to count
            tokenizer = train_tokenizer(config.tokenizer, ())
        else:
            texts = display.counted(train(), "vocabulary", size)
            if config.tokenizer.count_validation:
                texts = _both(texts, display.counted(validation(), "vocabulary, validation", None))
            tokenizer = train_tokenizer(config.tokenizer, texts, ended)
        if isinstance(tokenizer, FileTokenizer) and not tokenizer.streams:
            warnings.warn(
                f"tokenizer {config.tokenizer.path} sees a text as one piece, so the text cannot be cut: it is "
                "encoded whole, in memory",
                stacklevel=2,
            )
        end = document_end(config, tokenizer)
        counts: list[int] = []
        parts: dict[str, dict[str, int]] = {}
        # Plain writes: the folder gets its name when all of it is there.
        with concerning(building / TOKENIZER):
            (building / TOKENIZER).write_text(tokenizer.to_text(), encoding="utf-8")
        for name, title, total in (
            (TRAIN, "training tokens", size),
            (VALIDATION, "validation tokens", None),
        ):
            if end is not None:
                pieces = display.counted(documents(name == VALIDATION), title, total)
                encoded = encoded_documents(pieces, tokenizer, end)
            else:
                text = train() if name == TRAIN else validation()
                cut = tokenizer.parts(display.counted(text, title, total))
                encoded = ((tokenizer.encode(part), len(part.encode("utf-8"))) for part in cut)
            write_tokens(building / name, encoded, tokenizer.vocabulary_size, tokenizer.hash)
            written = open_tokens(building / name)
            counts.append(written.count)
            parts[name.partition(".")[0]] = {"bytes": written.bytes, "tokens": written.count} | (
                {} if end is None else {"documents": documents_in(written, end)}
            )
            if written.count <= (0 if end is None else documents_in(written, end) + 1):
                part = "training" if name == TRAIN else "validation"
                raise ValueError(
                    f"corpus {config.corpus!r} has no {part} text (or none that tokenizer "
                    f"{config.tokenizer.kind!r} keeps); nothing was written"
                )
        found = {"corpus": config.corpus, **corpus.origin(), "documents": config.documents, **parts}
        with concerning(building / SOURCE):
            (building / SOURCE).write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
        display.done(f"{counts[0]:,} training tokens and {counts[1]:,} to validate on")


def _both(first: Iterable[str], second: Iterable[str]) -> Iterator[str]:
    """Two texts as two: a blank line keeps the last word of one and the first of the other apart."""
    yield from first
    yield "\n\n"
    yield from second


def _remove_abandoned(parent: Path, age: float = 24 * 3600) -> None:
    """Remove what killed ingestions left: at once where the lock of one is free, after a day where none can be seen."""
    for path in parent.glob(".building-*"):
        try:
            changed = max(entry.stat().st_mtime for entry in [path, *path.iterdir()])
            if abandoned(path) or time.time() - changed > age:
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue
