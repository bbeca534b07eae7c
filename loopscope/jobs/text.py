"""Held-out text for evaluation: a run's own validation windows, or any text in the model's own tokens."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from loopscope.data.config import DataConfig
from loopscope.data.corpora import build_corpus, cap_bytes
from loopscope.data.source import open_data
from loopscope.data.tokenizers import ByteTokenizer, WordTokenizer
from loopscope.jobs.opened import Subject


@dataclass(frozen=True)
class HeldOut:
    """Windows of held-out text, in order, on the CPU."""

    input_ids: Tensor  # [windows seq]
    labels: Tensor
    bytes_per_token: float  # UTF-8 bytes of the text over its tokens; NaN where they are symbols of a task
    text: str  # what it is, in words

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Windows in order, `size` at a time."""
        yield from zip(self.input_ids.split(size), self.labels.split(size), strict=True)

    def part(self, first: int, end: int) -> "HeldOut":
        """Windows `first` to `end` (not included)."""
        return HeldOut(self.input_ids[first:end], self.labels[first:end], self.bytes_per_token, self.text)

    def __len__(self) -> int:
        return len(self.input_ids)


def held_out(subject: Subject, data: str | None, windows: int | None, length: int | None) -> HeldOut:
    """Windows to evaluate a model on: the whole of a run's validation text, or text of the user's.

    Args:
        data: as `loopscope audit --data` takes it; None takes the run's validation text, else `stdlib`.
        windows: at most so many, spread evenly; None: all (256 of a text that is not the run's own).
        length: tokens of a window; None: the trained length.

    Raises:
        ValueError: the text cannot be read, or is shorter than one window.
    """
    if data is None and subject.data is not None:
        data_of = open_data(subject.data, progress=True)
        trained = getattr(getattr(subject.model, "config", None), "sequence", 256)
        found = data_of.validation_windows(length or trained)
        count = len(found) if windows is None else min(windows, len(found))
        parts = list(found.sequential(64, count))
        ids, labels = (torch.cat([part[side] for part in parts]) for side in (0, 1))
        return HeldOut(ids, labels, data_of.bytes_per_token, subject.data.title)
    cut = probe(subject, data, windows or 256, length)
    return HeldOut(cut.input_ids, cut.labels, _bytes_per_token(subject, cut.labels), cut.text)


def _bytes_per_token(subject: Subject, labels: Tensor) -> float:
    """Of the labels themselves, decoded; 1 where the model has no tokenizer (bytes are its tokens)."""
    if subject.tokenizer is None:
        return 1.0
    ids = labels[labels >= 0].tolist()
    return len(subject.tokenizer.decode(ids).encode("utf-8")) / max(1, len(ids))


@dataclass(frozen=True)
class Probe:
    """The tokens an audit measures on."""

    input_ids: Tensor
    labels: Tensor
    text: str  # what they are, in words


def probe(subject: Subject, data: str | None, sequences: int, length: int | None) -> Probe:
    """Tokens to audit on: `sequences` windows of `length` tokens, spread evenly.

    Args:
        data: text files (a path or a glob), `stdlib`, a Hugging Face dataset's name, or a `.safetensors` with
            `input_ids` and, optionally, `labels`; None takes the run's validation tokens, else `stdlib`.
        length: tokens of a window; None takes the trained length, at most 256.
    """
    config = getattr(subject.model, "config", None)
    trained = getattr(config, "sequence", 256)
    if length is None:
        length = min(trained, 256)
    if data is not None and data.endswith(".safetensors"):
        return _token_file(Path(data), sequences)
    if data is None and subject.data is not None:
        try:
            found = open_data(subject.data, progress=True).validation_windows(length)
            ids, labels = next(found.sequential(sequences, sequences))
            return Probe(ids, labels, subject.data.title.replace("text", "tokens"))
        except ValueError as error:
            note = f"the run's own corpus cannot be read here ({error})"
            return _text(subject, "stdlib", sequences, length, f"; {note}")
    return _text(subject, data or "stdlib", sequences, length, "")


def _text(subject: Subject, data: str, sequences: int, length: int, note: str) -> Probe:
    tokenizer = subject.tokenizer
    if tokenizer is None:
        config = getattr(subject.model, "config", None)
        if getattr(config, "vocabulary", 0) < 256:
            raise ValueError(
                f"{subject.path} has no tokenizer.json; give tokens instead: --data tokens.safetensors with "
                "input_ids [batch, seq] and, optionally, labels"
            )
        tokenizer, note = ByteTokenizer(), f"{note}; as bytes, because the model has no tokenizer"
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
    pieces: Iterator[str] = corpus.validation() if is_name else _whole(corpus)
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
    if isinstance(tokenizer, WordTokenizer) and (share := float((tokens == 3).float().mean())) > 0.2:
        unknown = f"; {share:.0%} of them unknown to its vocabulary, so losses here say little"
    return Probe(tokens[:, :-1], tokens[:, 1:], f"text of {data}{note}{unknown}")


def looks_like_files(data: str) -> bool:
    """Whether a text's name is a path or a glob, rather than a dataset's: `name` or `owner/name`."""
    sign = any(sign in data for sign in "*?~\\") or data.startswith((".", "/"))
    return sign or data.count("/") > 1 or Path(data).suffix[1:].isalpha()


def _whole(corpus: Any) -> Iterator[str]:
    """Files given to an audit are not split: all of their text, training part first."""
    yield from corpus.train()
    yield "\n\n"
    yield from corpus.validation()


def _token_file(path: Path, sequences: int) -> Probe:
    if not path.is_file():
        raise ValueError(f"data is {path}, which does not exist")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if "input_ids" not in tensors:
        raise ValueError(
            f"{path} has {', '.join(tensors) or 'no tensors'}; an audit needs input_ids [batch, seq]"
        )
    ids = tensors["input_ids"][:sequences]
    if "labels" in tensors:
        return Probe(ids, tensors["labels"][:sequences], f"tokens of {path.name}")
    if ids.ndim != 2 or ids.shape[1] < 2:
        raise ValueError(
            f"input_ids of {path} have shape {tuple(ids.shape)}; give [batch, seq], seq of 2 or more"
        )
    return Probe(ids[:, :-1], ids[:, 1:], f"tokens of {path.name}")


TEXT_BYTES = 2_000_000
"""Text that is read to cut windows from: enough for hundreds, spread over it."""
