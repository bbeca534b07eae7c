"""Which rows of a step's batch are whose, how much each part of it counts, and means over all of it.

The batch of a step is one, however many processes share it: part i of `training.accumulation` is cut into a slice for
every process. Means over tokens are means over the tokens that count in the whole batch, so a part (or a process) whose
labels are mostly ignored weighs as little as it has of them; means over states weigh every part alike. A penalty takes
the mean square of a part as all processes have it, so that one which is no mean itself (an anchor) is that of the part.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from loopscope.objectives.objective import Loss, Objective
from loopscope.objectives.token_loss import IGNORE_INDEX
from loopscope.training.distributed.ranks import Ranks


def own_rows(size: int, parts: int, ranks: Ranks) -> list[int]:
    """Return the rows of a batch of `size` that are this process', part by part."""
    each = size // (parts * ranks.world)
    starts = (each * (part * ranks.world + ranks.rank) for part in range(parts))
    return [row for start in starts for row in range(start, start + each)]


def own_depths(depths: Sequence[int], size: int, parts: int, ranks: Ranks) -> Sequence[int]:
    """Return the depths of this process' rows of a batch, or the one depth of all rows."""
    if len(depths) == 1 or ranks.alone:
        return depths
    return [depths[row] for row in own_rows(size, parts, ranks)]


def check_batch_share(batch: int, parts: int, ranks: Ranks) -> None:
    """Refuse a batch that processes cannot share alike.

    Raises:
        ValueError: with the nearest batches that they can.
    """
    least = parts * ranks.world
    if batch % least:
        below, above = batch // least * least, (batch // least + 1) * least
        near = f"{below} or {above}" if below else str(above)
        raise ValueError(
            f"training.batch {batch} cannot be shared alike by {ranks.world} processes with training.accumulation "
            f"{parts}: it must be a multiple of {least} (processes × accumulation), such as {near}"
        )


class BatchShare:
    """What this process' parts of one step's batch count, of the whole.

    Args:
        labels: of this process' rows, part by part.
        parts: how many there are.
    """

    def __init__(self, labels: Int[Tensor, "batch seq"], parts: int, ranks: Ranks) -> None:
        self.ranks = ranks
        self.whole = ranks.alone and parts == 1
        self.equal = 1 / (parts * ranks.world)
        if not self.whole:
            counted = (labels != IGNORE_INDEX).unflatten(0, (parts, -1)).sum(dim=(1, 2))
            self.counted = counted
            self.weights = counted / ranks.sum_(counted.sum())

    def labels(self, part: int, labels: Int[Tensor, "rows seq"]) -> Int[Tensor, "rows seq"]:
        """Return labels of which some count: a part without any is worked on all the same, and weighs nothing."""
        if self.whole:
            return labels
        return torch.where(self.counted[part] > 0, labels, 0)

    def weighed(self, part: int, loss: Loss, objective: Objective) -> Loss:
        """Return what a part adds to the loss and the figures of the whole batch."""
        if self.whole:
            return loss
        weight = self.weights[part]
        equal = {extra.name for extra in objective.extras if extra.per_sequence}
        terms = {name: term * (self.equal if name in equal else weight) for name, term in loss.terms.items()}
        if objective.penalties:
            mean_square = self.ranks.mean_through(loss.mean_square)
            terms |= {each.name: self.equal * each(mean_square) for each in objective.penalties}
        return Loss(
            total=torch.stack(list(terms.values())).sum(),
            terms=terms,
            cross_entropy=loss.cross_entropy * weight,
            l2_norm=loss.l2_norm * self.equal,
            mean_square=loss.mean_square * self.equal,
            dim=loss.dim,
        )

    def whole_gradient(self, total: Tensor) -> Tensor:
        """Return what to take the gradient of: processes average theirs, where a sum is wanted."""
        return total if self.ranks.alone else total * self.ranks.world

    def together(self, parts: Sequence[Loss]) -> Loss:
        """Return the loss and the figures of the whole batch, detached, from what this process' parts add to them."""
        first = parts[0]
        names = list(first.terms)
        loops = len(first.l2_norm)
        flat = self.ranks.sum_(torch.stack([_packed(part, names) for part in parts]).sum(dim=0))
        head, rest = flat[: 1 + len(names)], flat[1 + len(names) :]
        cross_entropy, l2_norm, mean_square = rest.split(loops)
        return Loss(
            total=head[0],
            terms=dict(zip(names, head[1:], strict=True)),
            cross_entropy=cross_entropy,
            l2_norm=l2_norm,
            mean_square=mean_square,
            dim=first.dim,
        )


def _packed(loss: Loss, names: Sequence[str]) -> Tensor:
    """All figures of a loss in one row: what is summed over processes is summed at once."""
    figures = [torch.stack([loss.total, *(loss.terms[name] for name in names)])]
    return torch.cat(
        [each.detach() for each in (*figures, loss.cross_entropy, loss.l2_norm, loss.mean_square)]
    )
