"""An optimizer's state as named tensors: what a checkpoint keeps beside the weights."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from loopscope.training.muon import MuonWithAdamW

AnyOptimizer = torch.optim.Optimizer | MuonWithAdamW


def optimizer_tensors(model: nn.Module, optimizer: AnyOptimizer) -> dict[str, Tensor]:
    """Return the optimizer's state by parameter name: `layers.0.….weight/exp_avg`."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}/{key}": torch.as_tensor(value)
        for parameter, entries in optimizer.state.items()
        for key, value in entries.items()
    }


def restore_optimizer(model: nn.Module, optimizer: AnyOptimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave, in place of all that the optimizer has."""
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for name, value in tensors.items():
        parameter_name, key = name.rsplit("/", 1)
        parameter = parameters[parameter_name]
        # Fused AdamW keeps its step counter on the parameter's device.
        optimizer.state[parameter][key] = value.to(parameter.device)


def state_bytes(model: nn.Module, optimizer: AnyOptimizer) -> int:
    """Return the size of the weights and the optimizer's state, which a checkpoint is about as large as."""
    tensors = [*model.state_dict().values(), *optimizer_tensors(model, optimizer).values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
