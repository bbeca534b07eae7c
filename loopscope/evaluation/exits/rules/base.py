"""What an exit rule is: a score per token at every loop, a direction, and the thresholds that make sense.

A rule leaves at the first loop before the last whose score is past its threshold. Per token that is the token's own
score; per sequence it is the mean over the sequence's tokens. Rules are plain functions of one look and of what they
kept of the loop before, so that a driver can drop rows between loops: everything that is kept has the batch first.
"""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from loopscope.evaluation.exits.rules.look import Look
from loopscope.recurrence import AbstractLoopedLM
from loopscope.results.declaration import check_fields

Shown = Literal["logits", "features", "hidden", "gate"]
"""What a look shows: a whole readout, what the head reads, H_k (and H_0), the exit gate's probability."""

Kept = Mapping[str, Tensor]
"""What a rule keeps of one loop for the next: tensors [batch ...], cut when sequences leave the batch."""


@dataclass(frozen=True)
class Sizes:
    """What a look costs is counted with these."""

    features: int  # channels that the head reads
    vocab: int
    sequence: int
    readout: float  # FLOPs per token of one exit: coda and head

    @property
    def coda(self) -> float:
        """FLOPs per token of what comes before the head: the features."""
        return self.readout - 2 * self.features * self.vocab


class AbstractRule(ABC):
    """What rules that run and bounds share. Its class attributes are what it declares.

    Attributes:
        name: what the command line and the records call it; a rule of your own is called what it was asked for by.
        needs: what it reads at every loop: `logits` (a whole readout), `features` (what the head reads), `hidden`,
            `gate`; () reads nothing.
        bound: it knows the labels, so it cannot be run: a bound to compare others with.
        leaves: on which side of the threshold a token leaves.
        units: what it can decide for. A score that a sequence's later tokens take part in is none of a token's.
        flops: FLOPs per token of matrix products of its own at one look, beside what `needs` costs.
        low, high: the thresholds that make sense. `never` is allowed beside them.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    bound: ClassVar[bool] = False
    units: ClassVar[tuple[Literal["sequence", "token"], ...]] = ("sequence", "token")
    leaves: ClassVar[Literal["above", "below"]] = "above"
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = math.inf
    flops: ClassVar[float] = 0.0

    def __init_subclass__(cls) -> None:
        if "name" not in vars(cls):  # not its parent's
            cls.name = f"{cls.__module__}:{cls.__qualname__}"

    def check_declared(self) -> None:
        """Hold every class attribute to what it may be: see `results.declaration.check_fields`.

        Raises:
            ValueError: the first that does not fit, with what is allowed.
        """
        kinds: dict[str, Any] = {}
        for base in (AbstractRule, AbstractExitRule):
            if isinstance(self, base):
                kinds |= {name: get_args(kind)[0] for name, kind in inspect.get_annotations(base).items()}
        check_fields(f"exit rule {self.name}", self, kinds)

    @property
    def never(self) -> float:
        """The threshold at which nothing leaves before the last loop."""
        return math.inf if self.leaves == "above" else -math.inf

    def fires(self, score: Float[Tensor, "*units"], threshold: float) -> Bool[Tensor, "*units"]:
        """Return whether each score is past the threshold; a score equal to it is."""
        if threshold == self.never:
            return torch.zeros_like(score, dtype=torch.bool)
        return score >= threshold if self.leaves == "above" else score <= threshold

    def check_threshold(self, threshold: Any) -> float:
        """Return the threshold as a number.

        Raises:
            ValueError: not a number, or out of the rule's range.
        """
        number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
        if number and (threshold == self.never or self.low <= threshold <= self.high):
            return float(threshold)
        reach = f"from {self.low:g} up" if self.high == math.inf else f"from {self.low:g} to {self.high:g}"
        raise ValueError(
            f"threshold is {threshold!r}; rule {self.name!r} leaves at a score {self.leaves} it and takes a number "
            f"{reach}, or {self.never} to never leave. `loopscope evaluate exits` finds one that holds"
        )


class AbstractExitRule(AbstractRule):
    """A rule that can be run: it sees what loop k shows, and nothing else.

    Attributes:
        compares: it compares exits with the loop before, and has no score at loop 1 (infinite: only an infinite
            threshold leaves there).
    """

    needs: ClassVar[tuple[Shown, ...]] = ()
    compares: ClassVar[bool] = False

    @abstractmethod
    def score(self, look: Look, before: Kept) -> tuple[Float[Tensor, "batch seq"], Kept]:
        """Return the score of every token, in fp32 or wider, and what to keep for the next loop.

        Args:
            before: what it kept of the loop before; empty at loop 1.
        """

    def look_flops(self, loop: int, sizes: Sizes) -> float:
        """Return FLOPs per token of one look at this loop: of what the rule needs, and `flops` of its own.

        Matrix products only.
        """
        read = sizes.readout if "logits" in self.needs else sizes.coda if "features" in self.needs else 0.0
        return read + self.flops

    @torch.no_grad()
    def check_model(self, model: AbstractLoopedLM, input_ids: Int[Tensor, "batch seq"]) -> None:
        """Raise ValueError where the rule cannot be run on this model. Most can on any."""


class AbstractBound(AbstractRule):
    """What a rule that knew the labels would do."""

    bound = True
    needs = ("labels",)

    @abstractmethod
    def scores(self, losses: Float[Tensor, "loops units"]) -> Float[Tensor, "loops units"]:
        """Return the score of every unit (sequence or token) at every loop, from its loss at all loops."""
