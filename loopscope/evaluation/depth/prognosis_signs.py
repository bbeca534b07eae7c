"""What loops 1 to K + 2 of one forward show of what comes after them: losses, scale, direction, predictions.

Loop k is read as the last of k loops (`readings`), from one unroll where the states do not depend on its depth. Memory:
the features of every exit, one state, and two chunks of logits.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.evaluation.depth.readings import states_at_depths
from loopscope.numerics import has_scale, l2_norm, scale, wide
from loopscope.objectives.token_loss import CHUNK_ELEMENTS, IGNORE_INDEX
from loopscope.recurrence import AbstractLoopedLM, LoopState
from loopscope.recurrence.model_errors import first_line
from loopscope.results import LoopSigns


class TooDeepError(ValueError):
    """A model that does not run one loop more.

    Attributes:
        loops: which one it does not run.
    """

    def __init__(self, loops: int, error: Exception) -> None:
        self.loops = loops
        super().__init__(first_line(error))


@torch.no_grad()
def loop_signs(
    model: AbstractLoopedLM, input_ids: Int[Tensor, "batch seq"], labels: Int[Tensor, "batch seq"], loops: int
) -> list[LoopSigns]:
    """Return what every loop from 1 to `loops` shows.

    Args:
        model: in fp32 and evaluation mode.
        labels: the token that follows each input token; -100 is not counted.
        loops: the last loop looked at.

    Returns:
        One record per loop; fewer where the state, its size or a loss is not finite.

    Raises:
        TooDeepError: the model does not run so deep.
    """
    counted = labels != IGNORE_INDEX
    features: list[Tensor] = []
    paths: list[tuple[float, float, float, float]] = []
    path = _Path()
    try:
        for state in states_at_depths(model, input_ids, range(1, loops + 1)):
            if not has_scale(state.hidden):
                break
            paths.append(path.step(state))
            features.append(wide(state.features())[counted])
    except Exception as error:  # whatever a stranger's forward says of a depth that it does not have
        if len(paths) < model.loops:
            raise
        raise TooDeepError(len(paths) + 1, error) from error
    exits = _exits(model, features, labels[counted])
    return [
        LoopSigns(loop, entropy_of_labels, rms, radial, angular, straight, divergence, entropy)
        for loop, ((rms, radial, angular, straight), (entropy_of_labels, divergence, entropy)) in enumerate(
            zip(paths, exits, strict=False), start=1
        )
    ]


class _Path:
    """The way of the state: its scale, and how far and how straight its direction goes."""

    def __init__(self) -> None:
        self.scale: Tensor | None = None
        self.direction: Tensor | None = None
        self.turn: Tensor | None = None

    def step(self, state: LoopState) -> tuple[float, float, float, float]:
        """Return mean scale, radial step, angular step and straightness of one more loop."""
        hidden = wide(state.hidden)
        size = scale(hidden).clamp(min=1e-30)
        towards = hidden / size[..., None]
        radial = angular = straight = 0.0
        if self.scale is not None and self.direction is not None:
            turn = towards - self.direction
            radial = float((size / self.scale).log().mean())
            angular = float(l2_norm(turn).mean()) / math.sqrt(hidden.shape[-1])
            if self.turn is not None:
                straight = float(torch.cosine_similarity(turn, self.turn, dim=-1).mean())
            self.turn = turn
        self.scale, self.direction = size, towards
        return float(size.mean()), radial, angular, straight


def _exits(
    model: AbstractLoopedLM, features: Sequence[Float[Tensor, "tokens dim"]], labels: Int[Tensor, " tokens"]
) -> list[tuple[float, float, float]]:
    """Every exit's cross-entropy, the KL of its prediction from the exit's before, and its entropy; the finite ones."""
    if not features:
        return []
    vocabulary = wide(model.head(features[0][:1])).shape[-1]
    rows = max(1, CHUNK_ELEMENTS // vocabulary)
    sums = torch.zeros(len(features), 3, dtype=torch.float64)
    for start in range(0, len(labels), rows):
        before: Tensor | None = None
        for place, exit_features in enumerate(features):
            logits = _precise(model.head(exit_features[start : start + rows]))
            logs = logits.log_softmax(dim=-1)
            likely = logits.softmax(dim=-1)  # an exponential is slow where nothing is left
            if before is not None:
                sums[place, 1] += float((likely * (logs - before)).nan_to_num().sum())
            sums[place, 0] += float(F.nll_loss(logs, labels[start : start + rows].long(), reduction="sum"))
            sums[place, 2] -= float((likely * logs).nan_to_num().sum())
            before = logs
    means = (sums / len(labels)).tolist()
    finite = next((place for place, row in enumerate(means) if not math.isfinite(row[0])), len(means))
    return [(row[0], row[1], row[2]) for row in means[:finite]]


def _precise(logits: Tensor) -> Tensor:
    """In fp64: in fp32 a divergence is off by 1e-8 nats either way. In fp32 where a device has no fp64."""
    return wide(logits) if logits.device.type == "mps" else logits.double()
