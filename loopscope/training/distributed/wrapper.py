"""What a training step asks of a model that several processes train. One process alone: the model as it is."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from typing import Any, TypeVar

from torch import nn

from loopscope.objectives.objective import Loss
from loopscope.recurrence import AbstractLoopedLM
from loopscope.training.distributed.strategy import Strategy

_Found = TypeVar("_Found")


class AbstractWrapper(ABC):
    """A model as several processes train it.

    Attributes:
        strategy: which way.
        model: the model itself; its parts may be called inside `loss` and `inside` alone.
    """

    strategy: Strategy
    model: AbstractLoopedLM

    @abstractmethod
    def loss(self, compute: Callable[..., Loss], *inputs: Any) -> Loss:
        """Return `compute(*inputs)`, whose gradients are exchanged on their way back."""

    @abstractmethod
    def part(self, last: bool) -> AbstractContextManager[None]:
        """Enclose the forward and backward pass of a part of a batch: gradients are exchanged with the last one."""

    def after_backward(self) -> None:  # noqa: B027 (weights that are whole need nothing)
        """Follow the last backward pass of a step, before its gradients are looked at."""

    def inside(self, run: Callable[[], _Found]) -> _Found:
        """Return `run()`, which may call the model's parts, without gradients. Every process runs it alike."""
        return run()


class OneProcess(AbstractWrapper):
    """The model as it is."""

    strategy: Strategy = "one"

    def __init__(self, model: AbstractLoopedLM) -> None:
        self.model = model

    def loss(self, compute: Callable[..., Loss], *inputs: Any) -> Loss:
        return compute(*inputs)

    def part(self, last: bool) -> AbstractContextManager[None]:
        return nullcontext()


class ForwardOf(nn.Module):
    """A module whose forward pass runs any function of the model: DDP and FSDP2 stand around a forward pass.

    What a loss is made of leaves it as a dictionary: they look for tensors in those, not in a `Loss`.
    """

    def __init__(self, model: AbstractLoopedLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, run: Callable[..., Any], *inputs: Any) -> Any:
        found = run(*inputs)
        if isinstance(found, Loss):
            return {field.name: getattr(found, field.name) for field in fields(Loss)}
        return found
