"""A model in shards (FSDP2): every process keeps a share of each weight, its gradient and its moments.

FSDP2 brings a layer's weights together where it is called and lets go of them after it: for a layer that is called in K
loops, K times on the way forth and K times back. Weights do not change within a step. So a shared layer's are gathered
once, kept for all loops and all parts of a batch, both ways, and let go of before the optimizer's step, after which
they would be stale; its gradient is reduced once (twice where the batch comes in parts: the sum of the earlier ones,
and the last one's). That costs the memory of the shared layers' weights, and of their gradients while a batch comes in
parts. `training.fsdp_reshard: loop` trades it back: FSDP2 as it comes.

Weights are gathered in fp32 and computed with under autocast, as in one process.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from loopscope.objectives.objective import Loss
from loopscope.ops.step_scope import part_scope
from loopscope.recurrence import AbstractLoopedLM
from loopscope.training.distributed.ranks import Ranks
from loopscope.training.distributed.strategy import Strategy
from loopscope.training.distributed.wrapper import AbstractWrapper, ForwardOf
from loopscope.training.optim import Optimizer

_Found = TypeVar("_Found")


class FSDPWrapper(AbstractWrapper):
    """A model whose weights lie in shards.

    Args:
        model: on any device; its weights are moved to `device`, layer by layer, and replaced by their shards.
        reshard: `step`: weights of layers that are called again and again are kept from their first call to the end of
            the step. `loop`: FSDP2's own way.
    """

    strategy: Strategy = "fsdp"

    def __init__(
        self, model: AbstractLoopedLM, device: torch.device, ranks: Ranks, reshard: Literal["step", "loop"]
    ) -> None:
        self.model, self.ranks, self.reshard = model, ranks, reshard
        mesh = init_device_mesh(device.type, (ranks.world,))
        inner = ForwardOf(model)
        again = called_again(model)
        for layer in layers_of(model):
            keep = reshard == "step" and layer in again
            sharded = fully_shard(layer, mesh=mesh, reshard_after_forward=not keep)
            sharded.set_reshard_after_backward(not keep, recurse=False)
            layer.register_forward_pre_hook(_with_gradient, prepend=True, with_kwargs=True)
        self.sharded: Any = fully_shard(inner, mesh=mesh)
        self.sharded.set_reshard_after_backward(reshard == "loop", recurse=False)

    def loss(self, compute: Callable[..., Loss], *inputs: Any) -> Loss:
        return Loss(**self.sharded(compute, *inputs))

    @contextmanager
    def part(self, last: bool) -> Iterator[None]:
        if self.reshard == "step":
            self.sharded.set_requires_gradient_sync(last)
        with part_scope():
            yield

    def after_backward(self) -> None:
        self._let_go()

    @torch.no_grad()
    def inside(self, run: Callable[[], _Found]) -> _Found:
        found: _Found = self.sharded(run)
        self._let_go()
        return found

    def _let_go(self) -> None:
        """Let go of gathered weights, which the optimizer's step would not change."""
        for module in self.sharded.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def layers_of(model: nn.Module) -> list[nn.Module]:
    """Return the modules that are gathered by themselves: those of module lists, outermost first."""
    found: list[nn.Module] = []
    inner: set[nn.Module] = set()
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and module not in inner:
            for layer in module:
                if layer not in found and any(True for _ in layer.parameters()):
                    found.append(layer)
                inner.update(layer.modules())
    return found


def called_again(model: AbstractLoopedLM) -> set[nn.Module]:
    """Return the layers that a step calls more than once: all but those of a prelude."""
    once = getattr(model, "prelude", ())
    return {*layers_of(model)} - {*once}


def _with_gradient(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Let a layer's input want a gradient where it does not: FSDP2 learns from it that a call is through.

    Where the gradient is cut to the last loops, the first of them has such an input, and its weights' gradient would
    never be reduced.
    """
    tensors = [value for value in args if isinstance(value, Tensor) and value.is_floating_point()]
    if not torch.is_grad_enabled() or not tensors or any(value.requires_grad for value in tensors):
        return None
    first = tensors[0]
    changed = tuple(value.detach().requires_grad_() if value is first else value for value in args)
    return changed, kwargs


def shard_states(whole: dict[str, dict[str, Any]], optimizer: Optimizer, model: nn.Module) -> None:
    """Give the optimizer of a model in shards the shards of a whole state, by parameter's name."""
    for name, parameter in model.named_parameters():
        for key, value in whole.get(name, {}).items():
            assert isinstance(parameter, DTensor), "the root shards every parameter"
            mine = value
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.ndim:
                on_device = value.to(parameter.device_mesh.device_type)
                mine = distribute_tensor(
                    on_device, parameter.device_mesh, parameter.placements, src_data_rank=None
                )
            elif isinstance(value, Tensor):
                mine = value.to(parameter.to_local().device)
            optimizer.state[parameter][key] = mine


def states_by_name(optimizer: Optimizer, model: nn.Module) -> dict[str, dict[str, Any]]:
    """Return an optimizer's state by parameter's name."""
    return {
        name: dict(optimizer.state[parameter])
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
    }
