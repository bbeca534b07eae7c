"""A replica in every process (DDP): gradients are averaged in the backward pass, once a step."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from loopscope.guards import same_random_numbers
from loopscope.objectives.depth import unroll_to
from loopscope.objectives.objective import Loss, Objective
from loopscope.recurrence import AbstractLoopedLM
from loopscope.training.config import TrainingConfig
from loopscope.training.distributed.strategy import Strategy
from loopscope.training.distributed.wrapper import AbstractWrapper, ForwardOf

_Found = TypeVar("_Found")


class DDPWrapper(AbstractWrapper):
    """A whole model in every process.

    Args:
        unused: whether a step may leave a trainable parameter without a gradient. DDP then looks for such in every
            step, and they keep none, as in one process.
    """

    strategy: Strategy = "ddp"

    def __init__(self, model: AbstractLoopedLM, device: torch.device, unused: bool) -> None:
        self.model = model
        with warnings.catch_warnings():
            # torch 2.13 has a new name for it, which 2.11 does not know.
            warnings.filterwarnings("ignore", message=".*broadcast_buffers")
            self.ddp = DistributedDataParallel(
                ForwardOf(model),
                device_ids=[device] if device.type == "cuda" else None,
                broadcast_buffers=False,
                find_unused_parameters=unused,
                gradient_as_bucket_view=True,
            )

    def loss(self, compute: Callable[..., Loss], *inputs: Any) -> Loss:
        return Loss(**self.ddp(compute, *inputs))

    def part(self, last: bool) -> AbstractContextManager[None]:
        return nullcontext() if last else self.ddp.no_sync()


def leaves_unused(
    model: AbstractLoopedLM,
    objectives: Sequence[Objective],
    config: TrainingConfig,
    input_ids: Tensor,
    labels: Tensor,
) -> bool:
    """Return whether some step may leave a trainable parameter without a gradient: it is tried on one sequence.

    Depth 1 runs no carry, a loss may not read the gate that a model has, and a gradient that is cut to the last loops
    reaches the input of shallow sequences alone. Weights, gradients and random numbers are then as they were.

    Args:
        input_ids: of one window, [1, seq], and its labels.
    """
    if config.depth.backprop is not None:
        return True
    fewest = config.depth.fewest(model.loops)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for objective in objectives:
        with same_random_numbers(input_ids.device):
            loss = objective(unroll_to(model, input_ids, [fewest]), labels).total
            loss.backward()
        idle = any(parameter.grad is None for parameter in trained)
        for parameter in trained:
            parameter.grad = None
        if idle:
            return True
    return False
