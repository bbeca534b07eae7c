"""A model in shards and its optimizer, whole again to be saved: gathered one tensor at a time, kept by one process.

Costs that process, on the host, weights and moments as one process would have them.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from loopscope.training.optim import Optimizer


class WholeState(nn.Module):
    """Reads as the model does where it is saved: `state_dict` and `named_parameters`, by the same names.

    Attributes:
        optimizer: reads as the optimizer does: `state`, by these parameters.

    Args:
        keeps: whether this process keeps what is gathered; the others only lend.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, keeps: bool) -> None:
        super().__init__()
        gathered: dict[int, Tensor] = {}  # one per tensor, so that tied weights stay tied
        self.tensors: dict[str, Tensor] = {}
        self.by_name: dict[str, nn.Parameter] = {}
        for name, tensor in model.state_dict(keep_vars=True).items():
            if id(tensor) not in gathered:
                gathered[id(tensor)] = _whole(tensor, keeps)
            self.tensors[name] = gathered[id(tensor)]
        state: dict[Tensor, dict[str, Any]] = {}
        for name, parameter in model.named_parameters():
            self.by_name[name] = nn.Parameter(gathered[id(parameter)], requires_grad=False)
            entries = optimizer.state.get(parameter)
            if entries:
                state[self.by_name[name]] = {
                    key: _whole(value, keeps) if isinstance(value, Tensor) else value
                    for key, value in sorted(entries.items())
                }
        self.optimizer = _Optimizer(state)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        return self.tensors

    def named_parameters(self, *args: Any, **kwargs: Any) -> Any:
        return iter(self.by_name.items())


class _Optimizer:
    def __init__(self, state: dict[Tensor, dict[str, Any]]) -> None:
        self.state = state


def _whole(tensor: Tensor, keeps: bool) -> Tensor:
    """A tensor with all its shards, on the host; empty where it is not kept. Every process has to ask."""
    detached = tensor.detach()
    full = detached.full_tensor() if isinstance(detached, DTensor) else detached
    return full.to("cpu", copy=True) if keeps else torch.empty(0)
