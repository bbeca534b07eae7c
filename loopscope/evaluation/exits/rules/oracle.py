"""Oracle: leaves where the loss, which no rule knows, is as good as it gets."""

from jaxtyping import Float
from torch import Tensor

from loopscope.evaluation.exits.rules.base import AbstractBound


class Oracle(AbstractBound):
    """Leaves at the first loop whose own loss is within the threshold, in nats per token, of the best loop's.

    A bound, not a rule: it reads the labels. With a threshold of 0 no rule has a lower loss.
    """

    name = "oracle"
    leaves = "below"

    def scores(self, losses: Float[Tensor, "loops units"]) -> Float[Tensor, "loops units"]:
        return losses - losses.amin(dim=0)
