"""A model's head as a matrix, found by asking the head: any model of the waist whose head is linear has one."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.numerics import wide
from loopscope.recurrence import AbstractLoopedLM


@dataclass(frozen=True)
class HeadMatrix:
    """logits = rows @ features + bias, and the state of the weights that it was found with."""

    rows: Float[Tensor, "vocab features"]
    bias: Float[Tensor, " vocab"]
    weights: tuple[tuple[int, int], ...]

    @staticmethod
    @torch.no_grad()
    def of(model: AbstractLoopedLM, features: Float[Tensor, "batch seq features"]) -> "HeadMatrix":
        """Ask the head for its response to every channel alone.

        Raises:
            ValueError: the head is not linear (a softcap, say), so that entries cannot be scored apart, or its logits
                are not finite.
        """
        width = features.shape[-1]
        bias = model.head(features.new_zeros(1, width))[0]
        rows = (
            model.head(torch.eye(width, dtype=features.dtype, device=features.device)) - bias
        ).T.contiguous()
        probe = features[:1, -1]
        own, found = wide(model.head(probe)), wide(probe @ rows.T + bias)
        if not bool(own.isfinite().all() and found.isfinite().all()):
            raise ValueError(
                "the model's logits are not finite, so its head cannot be taken apart: it has diverged, or its weights "
                "are damaged. Evaluate an earlier checkpoint"
            )
        tolerance = 1e-3 if own.dtype == rows.dtype else 5e-2
        if not torch.allclose(found, own, rtol=0, atol=tolerance * float(own.abs().max())):
            raise ValueError(
                "rule 'shortlist-margin' needs a head that is a matrix, and this model's is not (a softcap, or a step "
                "after it); use 'logit-margin', which reads whole logits, or 'direction-step', which reads none"
            )
        return HeadMatrix(rows, bias, _versions(model))

    def is_of(self, model: AbstractLoopedLM, features: Float[Tensor, "batch seq features"]) -> bool:
        """Return whether the model's weights are still those, and compute in the same numbers."""
        same = self.rows.dtype == features.dtype and self.rows.device == features.device
        return same and self.weights == _versions(model)

    def entries(
        self, tokens: Int[Tensor, "batch entries"]
    ) -> tuple[Float[Tensor, "batch entries features"], Float[Tensor, "batch entries"]]:
        """Return rows and bias of some vocabulary entries."""
        return self.rows[tokens], self.bias[tokens]


def _versions(model: AbstractLoopedLM) -> tuple[tuple[int, int], ...]:
    """Where every weight lies and how often it was written to."""
    return tuple((weight.data_ptr(), weight._version) for weight in model.parameters())
