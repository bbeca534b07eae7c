"""Labels that fit: one per token, of ids that the model has, and none of padding."""

from jaxtyping import Bool, Int
from torch import Tensor

from loopscope.objectives.token_loss import IGNORE_INDEX


def check_one_label_each(input_ids: Tensor, labels: Tensor) -> None:
    """Raise ValueError for labels of another shape than the tokens."""
    if labels.shape != input_ids.shape:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}, input_ids {tuple(input_ids.shape)}; give one label per token"
        )


def check_range(input_ids: Tensor, labels: Tensor, vocabulary: int) -> None:
    """Raise ValueError for ids or labels from outside a vocabulary, ignored labels aside."""
    for name, ids in (("labels", labels[labels != IGNORE_INDEX]), ("input_ids", input_ids)):
        if not ids.numel():
            continue
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= vocabulary:
            raise ValueError(f"{name} go from {low} to {high}; this model has ids 0 to {vocabulary - 1}")


def labels_of_texts(
    input_ids: Int[Tensor, "batch seq"], labels: Int[Tensor, "batch seq"], tokens: Bool[Tensor, "batch seq"]
) -> Int[Tensor, "batch seq"]:
    """Return labels of which none stands for padding: those are ignored (-100).

    At padding no label counts. Behind a text's last token one may be the padding that follows, where ids were padded
    before labels were cut from them (`ids[:, 1:]`): it is, where it equals the id at that padding and the padding there
    has a label too. Labels that are -100 at padding are taken as they are.

    Args:
        tokens: True at tokens, False at padding.
    """
    counts = tokens.clone()
    last = tokens[:, :-1] & ~tokens[:, 1:]
    follows = (labels[:, :-1] == input_ids[:, 1:]) & (labels[:, 1:] != IGNORE_INDEX)
    counts[:, :-1] &= ~(last & follows)
    return labels.masked_fill(~counts, IGNORE_INDEX)
