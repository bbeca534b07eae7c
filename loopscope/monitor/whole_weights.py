"""A looped model with whole weights beside one whose weights lie in shards (FSDP2), for the process that checks.

A check runs a model's parts by themselves, and takes gradients of states. In shards that would be an exchange at every
call, on all processes alike, and gradients on their way to the optimizer's. So every process lends its shards, one
parameter at a time, and the first one copies them into a model of its own. It costs that process one copy of the
weights, where the copy is made: on the host, unless the model was on a device before it was sharded.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from loopscope.guards import same_random_numbers
from loopscope.recurrence import AbstractLoopedLM


class WholeWeights:
    """A model's weights as they are in shards, gathered where `keeps`.

    Args:
        model: the looped model, in shards or not yet.
        keeps: whether this process has the copy. Others only lend.

    Attributes:
        copy: the model with whole weights; None where it is not kept.

    Raises:
        ValueError: a model in shards that cannot be built anew from a config.
    """

    def __init__(self, model: AbstractLoopedLM, keeps: bool) -> None:
        self.model = model
        self.copy = _twin(model) if keeps else None

    def gather(self) -> None:
        """Bring the copy to the weights of now. Every process has to call it, at the same step.

        Raises:
            ValueError: weights that the copy does not have.
        """
        own = {} if self.copy is None else _tensors(self.copy)
        for name, tensor in _tensors(self.model).items():
            whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if self.copy is None:
                continue
            if name not in own or own[name].shape != whole.shape:
                raise ValueError(
                    f"the model in shards has {name} of shape {tuple(whole.shape)}, and its copy has not: make the "
                    "scale monitor after adapters are put in and before the model is sharded"
                )
            own[name].copy_(whole)


def in_shards(model: nn.Module) -> bool:
    """Return whether any weight is a part of one (FSDP2)."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters, each once, and buffers, without the history that autograd would keep."""
    return {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def _twin(model: AbstractLoopedLM) -> AbstractLoopedLM:
    if not in_shards(model):
        return copy.deepcopy(model)
    kind: Any = next(each for each in type(model).__mro__ if not issubclass(each, FSDPModule))
    config = getattr(model, "config", None)
    if config is None:
        raise ValueError(
            f"this {kind.__name__} is in shards, and its whole weights have no place: make the ScaleMonitorCallback "
            "before the model is sharded, or audit saved checkpoints with loopscope.audit"
        )
    with same_random_numbers(torch.device("cpu")):
        twin: AbstractLoopedLM = kind(config)
    twin.loops = model.loops
    return twin.train(model.training)
