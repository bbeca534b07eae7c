"""Windows of text for audits and evaluation: a run's own validation text, or any text in the model's own tokens."""

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loopscope.data.config import DataConfig
from loopscope.data.corpora import build_corpus, cap_bytes
from loopscope.data.source import open_data
from loopscope.data.tokenizers import AbstractTokenizer, ByteTokenizer
from loopscope.jobs.opened import OpenedModel, config_setting
from loopscope.results.layout import TOKENIZER
from loopscope.results.tensor_file import read_tensors


@dataclass(frozen=True)
class TextWindows:
    """Windows of text with their labels, in order, on the CPU."""

    input_ids: Tensor  # [windows seq]
    labels: Tensor
    bytes_per_token: (
        float  # UTF-8 bytes of the text over its tokens; NaN for symbols of a task, or not counted
    )
    text: str  # what it is, in words
    unknown_share: float | None = None  # of the tokens of the whole text: they stand for unknown text
    unread_share: float | None = (
        None  # of its bytes: no known token stands for them. None where nobody counts
    )

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Windows in order, `size` at a time."""
        yield from zip(self.input_ids.split(size), self.labels.split(size), strict=True)

    def part(self, first: int, end: int) -> "TextWindows":
        """Windows `first` to `end` (not included)."""
        return replace(self, input_ids=self.input_ids[first:end], labels=self.labels[first:end])

    @property
    def hash(self) -> str:
        """Hash of all ids and labels, 16 digits."""
        digest = hashlib.sha256(self.input_ids.contiguous().numpy().tobytes())
        digest.update(self.labels.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.input_ids)


def held_out(
    opened: OpenedModel, data: str | None = None, windows: int | None = None, length: int | None = None
) -> TextWindows:
    """Windows to evaluate a model on: the whole of a run's validation text, or text of the user's.

    Args:
        data: as `some_windows` takes it; None takes the run's validation text, else `stdlib`.
        windows: at most so many, spread evenly; None: all (256 of a text that is not the run's own).
        length: tokens of a window; None: the trained length.

    Raises:
        ValueError: the text cannot be read, or is shorter than one window.
    """
    if data is None and opened.data is not None:
        data_of = open_data(opened.data, progress=True)
        there = data_of.validation_windows(length or trained_length(opened))
        count = len(there) if windows is None else min(windows, len(there))
        parts = list(there.sequential(64, count))
        ids, labels = (torch.cat([part[side] for part in parts]) for side in (0, 1))
        lost = data_of.lost
        return TextWindows(ids, labels, data_of.bytes_per_token, opened.data.title, lost.unknown, lost.unread)
    return counted(opened, some_windows(opened, data, windows or 256, length))


def counted(opened: OpenedModel, found: TextWindows) -> TextWindows:
    """Return windows with the bytes of their tokens, and the share of these that stand for unknown text."""
    unknown = None if opened.tokenizer is None else opened.tokenizer.unknown_id
    share = 0.0 if unknown is None else float((found.labels == unknown).double().mean())
    return replace(found, bytes_per_token=bytes_per_token_of(opened, found.labels), unknown_share=share)


def some_windows(opened: OpenedModel, data: str | None, count: int, length: int | None = None) -> TextWindows:
    """`count` windows of `length` tokens, spread evenly: what an audit measures on.

    Args:
        data: text files (a path or a glob), `stdlib`, a Hugging Face dataset's name, or a `.safetensors` with
            `input_ids` and, optionally, `labels`; None takes the run's validation tokens, else `stdlib`.
        length: tokens of a window; None takes the trained length, at most 256.

    Raises:
        ValueError: the text cannot be read, or is shorter than one window.
    """
    if length is None:
        length = min(trained_length(opened), 256)
    if data is not None and data.endswith(".safetensors"):
        return _token_file(Path(data), count)
    if data is None and opened.data is not None:
        try:
            found = open_data(opened.data, progress=True).validation_windows(length)
            ids, labels = next(found.sequential(count, count))
            return TextWindows(ids, labels, math.nan, opened.data.title.replace("text", "tokens"))
        except ValueError as error:
            note = f"the run's own corpus cannot be read here ({error})"
            return _text(opened, "stdlib", count, length, f"; {note}")
    return _text(opened, data or "stdlib", count, length, "")


def text_hash(data: DataConfig) -> str | None:
    """SHA-256 of a run's whole validation text, whatever its tokenizer; None for a task, which has none.

    Raises:
        ValueError: the text cannot be read any more.
    """
    if data.corpus == "task":
        return None
    return hash_of(cap_bytes(build_corpus(data).validation(), data.max_validation_bytes))


def hash_of(pieces: Iterable[str]) -> str:
    """SHA-256 of a text."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece.encode("utf-8", errors="replace"))
    return digest.hexdigest()


def trained_length(opened: OpenedModel) -> int:
    """Return the tokens of a text that a model was trained on, or has positions for; 256 where nothing says."""
    return int(config_setting(opened, "sequence", "max_position_embeddings") or 256)


def bytes_per_token_of(opened: OpenedModel, labels: Tensor) -> float:
    """Return the UTF-8 bytes of the labels, decoded, over their number; 1 without a tokenizer: bytes are the tokens."""
    if opened.tokenizer is None:
        return 1.0
    ids = labels[labels >= 0].tolist()
    return len(opened.tokenizer.decode(ids).encode("utf-8")) / max(1, len(ids))


def _text(opened: OpenedModel, data: str, sequences: int, length: int, note: str) -> TextWindows:
    tokenizer, as_bytes = reading_tokenizer(opened)
    note += as_bytes
    pieces = text_pieces(data)
    ids = np.concatenate([*tokenizer.encode_stream(cap_bytes(pieces, TEXT_BYTES)), np.zeros(0, np.uint32)])
    if len(ids) < length + 1:
        raise ValueError(
            f"{data} has {len(ids)} tokens, shorter than one window of {length} and the token after it; use "
            "more text or a smaller --length"
        )
    windows = (len(ids) - 1) // length
    count = min(sequences, windows)
    starts = np.arange(count) * windows // count * length
    tokens = torch.from_numpy(ids[starts[:, None] + np.arange(length + 1)].astype(np.int64))
    unknown = ""
    absent = tokenizer.unknown_id
    if absent is not None and (share := float((tokens == absent).float().mean())) > 0.2:
        unknown = f"; {share:.0%} of them unknown to its vocabulary, so losses here say little"
    ids_in, labels = tokens[:, :-1], tokens[:, 1:]
    text = f"text of {data}{note}{unknown}"
    return TextWindows(ids_in, labels, math.nan, text)


def reading_tokenizer(opened: OpenedModel) -> tuple[AbstractTokenizer, str]:
    """Return what a model reads text with, and a note where that is bytes because it has no tokenizer.

    Raises:
        ValueError: no tokenizer, and too few ids for bytes.
    """
    if opened.tokenizer is not None:
        return opened.tokenizer, ""
    if (config_setting(opened, "vocabulary", "vocab_size") or 0) < 256:
        raise ValueError(
            f"{opened.path} has no {TOKENIZER}; give tokens instead: --data tokens.safetensors with "
            "input_ids [batch, seq] and, optionally, labels"
        )
    return ByteTokenizer(), "; as bytes, because the model has no tokenizer"


def text_pieces(data: str) -> Iterator[str]:
    """Return a text by the name a user gives it: held-out text of a corpus, or the whole of files.

    Raises:
        ValueError: it cannot be read.
    """
    is_name = data == "stdlib" or not (Path(data).exists() or looks_like_files(data))
    try:
        corpus = build_corpus(
            DataConfig(corpus=data) if is_name else DataConfig(corpus="files", files=(data,))
        )
    except ValueError as error:
        raise ValueError(
            f"data is {data!r}: {error}. Give text files (a path or a glob), stdlib, a .safetensors with input_ids, or "
            "the name of a Hugging Face dataset (owner/name)"
        ) from error
    return iter(corpus.validation()) if is_name else _whole(corpus)


def looks_like_files(data: str) -> bool:
    """Whether a text's name is a path or a glob, rather than a dataset's: `name` or `owner/name`."""
    sign = any(sign in data for sign in "*?~\\") or data.startswith((".", "/"))
    return sign or data.count("/") > 1 or Path(data).suffix[1:].isalpha()


def _whole(corpus: Any) -> Iterator[str]:
    """Files given to an audit are not split: all of their text, training part first."""
    yield from corpus.train()
    yield "\n\n"
    yield from corpus.validation()


def _token_file(path: Path, sequences: int) -> TextWindows:
    if not path.is_file():
        raise ValueError(f"data is {path}, which does not exist")
    tensors = read_tensors(path)
    if "input_ids" not in tensors:
        raise ValueError(
            f"{path} has {', '.join(tensors) or 'no tensors'}; an audit needs input_ids [batch, seq]"
        )
    ids = tensors["input_ids"][:sequences]
    if "labels" in tensors:
        labels = tensors["labels"][:sequences]
        return TextWindows(ids, labels, math.nan, f"tokens of {path.name}")
    if ids.ndim != 2 or ids.shape[1] < 2:
        raise ValueError(
            f"input_ids of {path} have shape {tuple(ids.shape)}; give [batch, seq], seq of 2 or more"
        )
    ids, labels = ids[:, :-1], ids[:, 1:]
    return TextWindows(ids, labels, math.nan, f"tokens of {path.name}")


TEXT_BYTES = 2_000_000
"""Text that is read to cut windows from: enough for hundreds, spread over it."""
