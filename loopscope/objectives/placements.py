"""Placements: how the loops' cross-entropies (and the exit gate) make one loss.

Each works on per-token losses [loops batch seq], a few bytes per token: the logits behind them are gone.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from loopscope.numerics import wide
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.placement_config import PLACEMENTS, PlacementDeclaration


@dataclass(frozen=True)
class LossInput:
    """What one loop gives a loss: its gate's logit, and its cross-entropy per token where it is read."""

    loop: int
    token_loss: Float[Tensor, "batch seq"] | None
    gate_logit: Float[Tensor, "batch seq"] | None


class AbstractPlacement(ABC):
    """Which exits are supervised, and how much each counts.

    A subclass says which loops it reads. Where it knows every loop's share beforehand, that is all besides: the terms
    follow. Where it weighs tokens one by one, it overrides `terms` and `shares`.

    Attributes:
        declaration: what costs, the static audit and checks of a config ask. Every class has its own.
        name: what reports call it: what the config calls it.
    """

    declaration: ClassVar[PlacementDeclaration]
    name: str

    def __init__(self, config: ObjectiveConfig | None = None, settings: Any = None) -> None:  # noqa: B027
        """
        Args:
            config: of the objective.
            settings: an instance of the settings that the class declares; None where it declares none.
        """

    def __init_subclass__(cls) -> None:
        if "name" not in vars(cls):  # not its parent's
            cls.name = f"{cls.__module__}:{cls.__qualname__}"

    @classmethod
    def from_config(cls, config: ObjectiveConfig, settings: Any) -> "AbstractPlacement":
        """Build one for an objective. Override it where the constructor takes something else."""
        return cls(config, settings)

    @property
    def gate_only(self) -> bool:
        """Whether only the gate is trained.

        Its loop's state and cross-entropy are then read without gradient, and without dropout.
        """
        return self.declaration.gate == "alone"

    def advance(self, progress: float) -> None:  # noqa: B027 (most placements do not change)
        """Take note of how much of training is done, from 0 to 1, in placements that change over it."""

    @property
    def moves(self) -> bool:
        """Whether `advance` changes anything: whether it matters how long a training is to be."""
        return type(self).advance is not AbstractPlacement.advance

    @abstractmethod
    def reads(self, loop: int, loops: int) -> bool:
        """Return whether this loop's logits enter the loss. Others are never computed in training."""

    def share(self, loop: int, loops: int) -> float | None:
        """Return the factor of this loop's mean cross-entropy in the loss, where that is known before the loop is read.

        None where tokens are weighed one by one. A placement that has shares has one term, `cross_entropy`.
        """
        return None

    def terms(
        self, loss_inputs: Sequence[LossInput], counted: Bool[Tensor, "batch seq"]
    ) -> Mapping[str, Float[Tensor, ""]]:
        """Return named terms whose sum is the loss; means are over the counted tokens."""
        return {"cross_entropy": torch.stack(list(self.shares(loss_inputs, counted).values())).sum()}

    def shares(
        self, loss_inputs: Sequence[LossInput], counted: Bool[Tensor, "batch seq"]
    ) -> Mapping[int, Float[Tensor, ""]]:
        """Return what each exit that is read adds to the term `cross_entropy`, by loop.

        Audits ask; training does not.
        """
        found = {}
        for loss_input in loss_inputs:
            if loss_input.token_loss is not None:
                share = self.share(loss_input.loop, len(loss_inputs))
                if share is None:
                    raise NotImplementedError(
                        f"{type(self).__name__}.share({loss_input.loop}, {len(loss_inputs)}) is None: one that weighs "
                        "tokens one by one defines `terms` and `shares`"
                    )
                found[loss_input.loop] = share * mean_over(loss_input.token_loss, counted)
        return found


class Terminal(AbstractPlacement):
    """Placement that supervises the last loop alone."""

    declaration = PLACEMENTS.shipped["terminal"].declaration
    name = "terminal"

    def reads(self, loop: int, loops: int) -> bool:
        return loop == loops

    def share(self, loop: int, loops: int) -> float | None:
        return 1.0 if loop == loops else 0.0

    def terms(
        self, loss_inputs: Sequence[LossInput], counted: Bool[Tensor, "batch seq"]
    ) -> Mapping[str, Float[Tensor, ""]]:
        loss = loss_inputs[-1].token_loss
        assert loss is not None
        return {"cross_entropy": mean_over(loss, counted)}

    def shares(
        self, loss_inputs: Sequence[LossInput], counted: Bool[Tensor, "batch seq"]
    ) -> Mapping[int, Float[Tensor, ""]]:
        return {loss_inputs[-1].loop: self.terms(loss_inputs, counted)["cross_entropy"]}


class Dense(AbstractPlacement):
    """Every loop: their mean, or a weighted one; weights may move linearly to others over training."""

    declaration = PLACEMENTS.shipped["dense"].declaration
    name = "dense"

    def __init__(
        self, weights: Sequence[float] | None = None, final_weights: Sequence[float] | None = None
    ) -> None:
        self.first = weights
        self.final = final_weights
        self.weights = weights if final_weights is None else final_weights

    @classmethod
    def from_config(cls, config: ObjectiveConfig, settings: Any) -> "Dense":
        return cls(config.loop_weights, config.final_loop_weights)

    def advance(self, progress: float) -> None:
        if self.final is None:
            return
        first = [1.0] * len(self.final) if self.first is None else self.first
        # Shares are mixed, so that the sizes in which weights are written do not bend the line.
        start, end = sum(first), sum(self.final)
        self.weights = [
            (1 - progress) * one / start + progress * other / end
            for one, other in zip(first, self.final, strict=True)
        ]

    @property
    def moves(self) -> bool:
        return self.final is not None

    def reads(self, loop: int, loops: int) -> bool:
        return self.weights is None or self.weights[loop - 1] > 0

    def share(self, loop: int, loops: int) -> float | None:
        return 1 / loops if self.weights is None else self.weights[loop - 1] / sum(self.weights)

    def terms(
        self, loss_inputs: Sequence[LossInput], counted: Bool[Tensor, "batch seq"]
    ) -> Mapping[str, Float[Tensor, ""]]:
        weights = [1.0] * len(loss_inputs) if self.weights is None else list(self.weights)
        total = sum(
            weight * mean_over(loss_input.token_loss, counted)
            for weight, loss_input in zip(weights, loss_inputs, strict=True)
            if loss_input.token_loss is not None
        )
        return {"cross_entropy": torch.as_tensor(total / sum(weights))}

    def shares(
        self, loss_inputs: Sequence[LossInput], counted: Bool[Tensor, "batch seq"]
    ) -> Mapping[int, Float[Tensor, ""]]:
        weights = [1.0] * len(loss_inputs) if self.weights is None else list(self.weights)
        return {
            loss_input.loop: weight / sum(weights) * mean_over(loss_input.token_loss, counted)
            for weight, loss_input in zip(weights, loss_inputs, strict=True)
            if loss_input.token_loss is not None
        }


class ExitWeighted(AbstractPlacement):
    """Every loop, weighted per token by a learned gate's probability of stopping there, plus entropy.

    p_k = λ_k · prod_{j<k} (1 - λ_j), and the last loop takes what is left
    (Zhu et al., "Scaling Latent Reasoning via Looped Language Models", 2025).
    """

    declaration = PLACEMENTS.shipped["exit-weighted"].declaration
    name = "exit-weighted"

    def __init__(self, entropy_weight: float = 0.1) -> None:
        self.entropy_weight = entropy_weight

    @classmethod
    def from_config(cls, config: ObjectiveConfig, settings: Any) -> "ExitWeighted":
        return cls(config.entropy_weight)

    def reads(self, loop: int, loops: int) -> bool:
        return True

    def terms(
        self, loss_inputs: Sequence[LossInput], counted: Bool[Tensor, "batch seq"]
    ) -> Mapping[str, Float[Tensor, ""]]:
        probability = exit_probabilities([loss_input.gate_logit for loss_input in loss_inputs])
        losses = torch.stack(
            [loss_input.token_loss for loss_input in loss_inputs if loss_input.token_loss is not None]
        )
        entropy = -(probability * probability.clamp(min=1e-8).log()).sum(dim=0)
        return {
            "cross_entropy": mean_over((probability * losses).sum(dim=0), counted),
            "entropy": -self.entropy_weight * mean_over(entropy, counted),
        }

    def shares(
        self, loss_inputs: Sequence[LossInput], counted: Bool[Tensor, "batch seq"]
    ) -> Mapping[int, Float[Tensor, ""]]:
        probability = exit_probabilities([loss_input.gate_logit for loss_input in loss_inputs])
        return {
            loss_input.loop: mean_over(share * loss_input.token_loss, counted)
            for share, loss_input in zip(probability, loss_inputs, strict=True)
            if loss_input.token_loss is not None
        }


def exit_probabilities(
    gate_logits: Sequence[Float[Tensor, "batch seq"] | None],
) -> Float[Tensor, "loops batch seq"]:
    """Return the probability of stopping at each loop; it sums to 1 over loops.

    Raises:
        ValueError: the model has no exit gate.
    """
    if any(gate_logit is None for gate_logit in gate_logits):
        raise ValueError(
            "placement 'exit-weighted' needs a model with an exit gate; set model.exit_gate: true"
        )
    gates = torch.sigmoid(wide(torch.stack([logit for logit in gate_logits if logit is not None])))
    left = torch.cat([torch.ones_like(gates[:1]), (1 - gates[:-1]).cumprod(dim=0)])
    # The last loop takes what the earlier gates left: its own gate has no say.
    return torch.cat([gates[:-1] * left[:-1], left[-1:]])


def mean_over(values: Float[Tensor, "batch seq"], counted: Bool[Tensor, "batch seq"]) -> Float[Tensor, ""]:
    """Return the mean over the counted tokens."""
    return (values * counted).sum() / counted.sum()
