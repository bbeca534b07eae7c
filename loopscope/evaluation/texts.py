"""Batches as evaluations take them: ids, labels and, of padded texts, an attention mask; checked, padding cut off."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from loopscope.objectives.labels import check_one_label_each, labels_of_texts
from loopscope.recurrence import check_attention_mask, check_input_ids, texts_by_length

UncheckedBatch = tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]
"""Ids, labels, mask; each [batch seq]. Without a mask nothing is padding."""


class Texts(NamedTuple):
    """The texts of one length in a batch, without padding."""

    rows: Int[Tensor, " texts"]  # of the batch
    places: Bool[Tensor, "batch seq"]  # where in the batch their tokens are
    input_ids: Int[Tensor, "texts length"]
    labels: Int[Tensor, "texts length"]  # none of padding


def texts_of(batch: UncheckedBatch) -> Iterator[Texts]:
    """Yield the texts of a batch, those of one length together; a batch without padding as it is.

    Raises:
        ValueError: ids, labels or a mask that do not fit.
    """
    input_ids, labels, *mask = batch
    check_input_ids(input_ids)
    check_one_label_each(input_ids, labels)
    tokens = check_attention_mask(input_ids, mask[0]) if mask else None
    if tokens is None:
        everywhere = torch.ones_like(input_ids, dtype=torch.bool)
        yield Texts(torch.arange(len(input_ids)), everywhere, input_ids, labels)
        return
    labels = labels_of_texts(input_ids, labels, tokens)
    for rows, (ids, of_ids) in texts_by_length(tokens, input_ids, labels):
        places = torch.zeros_like(tokens)
        places[rows] = tokens[rows]
        yield Texts(rows, places, ids, of_ids)


def texts_in(batches: Iterable[UncheckedBatch]) -> Iterator[tuple[Int[Tensor, " texts"], Texts]]:
    """Yield the texts of every batch, with their places among all rows of all batches.

    Raises:
        ValueError: ids, labels or a mask that do not fit.
    """
    before = 0
    for batch in batches:
        for texts in texts_of(batch):
            yield texts.rows.cpu() + before, texts
        before += len(batch[0])
