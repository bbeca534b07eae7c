"""A number format for a model whose weights are not there in fp32: each one rounded for the operation that uses it.

A model in half precision without room for fp32 copies, or with weights elsewhere until they are used, is computed with
in fp32 weight by weight (`wide_weights.at_use`). So it is in another format: at most one weight is there twice.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from loopscope.recurrence import LoopState, next_hidden
from loopscope.weights_at_use import WeightsAtUse, is_floating, stored
from loopscope.wide_weights import is_narrow


def is_widened_at_use(model: nn.Module) -> bool:
    """Return whether some of a model's weights are in half precision or elsewhere: there is no fp32 copy of all."""
    return any(parameter.is_meta or is_narrow(parameter) for parameter in model.parameters())


class _InType(WeightsAtUse):
    """Every weight in one type of numbers."""

    def __init__(self, dtype: torch.dtype, kept: Collection[int]) -> None:
        super().__init__()
        self.dtype, self.kept = dtype, kept

    def concerns(self, parameter: nn.Parameter) -> bool:
        return is_floating(parameter) and id(parameter) not in self.kept

    def whole(self, parameter: nn.Parameter) -> Tensor:
        return stored(parameter).to(self.dtype)

    def of_part(self, result: Tensor) -> Tensor:
        return result.to(self.dtype)


class _Rounded(WeightsAtUse):
    """Shared matrices rounded, in fp32; every other weight is left to whoever widens it."""

    def __init__(self, to_format: Callable[[Tensor, int], Tensor], shared: Mapping[int, int]) -> None:
        super().__init__()
        self.to_format, self.shared = to_format, shared

    def concerns(self, parameter: nn.Parameter) -> bool:
        return id(parameter) in self.shared

    def whole(self, parameter: nn.Parameter) -> Tensor:
        own = stored(parameter)
        rounded = self.to_format(own.float(), self.shared[id(parameter)])
        return rounded.double() if own.dtype == torch.float64 else rounded


class _Seen(WeightsAtUse):
    """Notes the matrices that operations use, and exchanges none."""

    def __init__(self) -> None:
        super().__init__()
        self.matrices: dict[int, nn.Parameter] = {}

    def concerns(self, parameter: nn.Parameter) -> bool:
        if is_floating(parameter) and stored(parameter).ndim >= 2:
            self.matrices[id(parameter)] = parameter
        return False


@contextmanager
def in_type_at_use(dtype: torch.dtype, kept: Collection[int]) -> Iterator[None]:
    """Compute with every weight in one type of numbers for a while, but for those in `kept`, by id."""
    with _InType(dtype, kept):
        yield


@contextmanager
def rounded_at_use(to_format: Callable[[Tensor, int], Tensor], shared: Mapping[int, int]) -> Iterator[None]:
    """Compute with some matrices rounded for a while.

    Args:
        to_format: a matrix in fp32 and the axis of its output channels, to what it is rounded to.
        shared: by id of the parameter, that axis.
    """
    with _Rounded(to_format, shared):
        yield


@torch.no_grad()
def matrices_in_use(state: LoopState) -> dict[int, nn.Parameter]:
    """Return the matrices that one carry and core after `state` use, by id: seen, for no gradient reaches them."""
    seen = _Seen()
    with seen:
        next_hidden(state, state.hidden)
    return seen.matrices
