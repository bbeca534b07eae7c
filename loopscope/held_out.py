"""Held-out text for evaluation: a run's own validation windows, or any text in the model's own tokens."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from loopscope.data.source import open_data
from loopscope.subject import Subject, probe


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
