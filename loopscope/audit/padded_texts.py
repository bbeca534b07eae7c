"""Padded texts as an audit measures them: their tokens packed into one row, by a model that runs each text alone.

So every mean over tokens, of whatever is measured, is one over tokens of texts, and padding takes part in none.
"""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Int
from torch import Tensor

from loopscope.objectives.labels import check_one_label_each, labels_of_texts
from loopscope.objectives.token_loss import IGNORE_INDEX
from loopscope.recurrence import AbstractLoopedLM, PaddedRows, check_attention_mask, check_input_ids


@dataclass(frozen=True)
class PaddedTexts:
    """A padded batch without its padding.

    Attributes:
        model: takes and gives what is packed.
        places: row and column of every token.
        first: the model of one text, the first one that has a label, and its labels.
        notes: what the reader of a report should know.
    """

    model: PaddedRows
    input_ids: Int[Tensor, "1 tokens"]
    labels: Int[Tensor, "1 tokens"]
    places: list[tuple[int, int]]
    first: tuple[AbstractLoopedLM, Int[Tensor, "1 seq"], Int[Tensor, "1 seq"]]
    notes: tuple[str, ...]


def padded_texts(
    model: AbstractLoopedLM, input_ids: Any, labels: Any, attention_mask: Any
) -> PaddedTexts | None:
    """Return a batch without its padding; None where there is none.

    Raises:
        ValueError: ids, labels or a mask that do not fit.
    """
    if attention_mask is None or not isinstance(input_ids, Tensor) or not isinstance(labels, Tensor):
        return None
    check_input_ids(input_ids)
    check_one_label_each(input_ids, labels)
    tokens = check_attention_mask(input_ids, attention_mask)
    if tokens is None:
        return None
    counted = labels_of_texts(input_ids, labels, tokens)
    dropped = int(((counted != labels) & tokens).sum())
    notes = [f"Padding was left out: {int(tokens.sum())} of {tokens.numel()} places hold tokens of texts."]
    if dropped:
        notes.append(
            f"{dropped} of the labels behind a text's last token are the padding that follows it, and were not counted "
            "(give -100 at padding, and all others are)."
        )
    with_label = (counted != IGNORE_INDEX).any(dim=1).nonzero().flatten().tolist()
    one = with_label[0] if with_label else 0
    return PaddedTexts(
        model=PaddedRows(model, tokens, packed=True),
        input_ids=input_ids[tokens][None],
        labels=counted[tokens][None],
        places=[(row, column) for row, column in tokens.nonzero().tolist()],
        first=(model, input_ids[one, tokens[one]][None], counted[one, tokens[one]][None]),
        notes=tuple(notes),
    )
