"""Labels that fit: one per token, of ids that the model has."""

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
