"""Weights in half precision, computed with in fp32: by copies of all, or by copies that live for one operation each.

Copies of all take four bytes a weight beside the two that are stored. Where these do not fit, each operation on a
weight gets a copy that is freed after it, also on the way back: what autograd would keep of it is the weight itself,
widened once more. Both give the same numbers; the second takes the stored weights, the largest one in fp32, and more
time.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from loopscope.machine_limits import free_bytes
from loopscope.weights_at_use import WeightsAtUse

WIDE = (torch.float32, torch.float64)
"""Types in which figures are measured; others are narrower."""
COPIES_SHARE = 0.5
"""Share of the free memory that copies of all weights may take: the rest is for what is computed with them."""


@contextmanager
def widened(model: nn.Module, parameters: bool = True, buffers: bool = False) -> Iterator[set[torch.dtype]]:
    """Replace parameters in half precision by fp32 copies for a while, tied ones by one copy.

    They themselves are not touched: widening a parameter's own data would make autograd forget its gradient
    accumulator, and with it the hooks through which DDP exchanges gradients.

    Args:
        parameters: widen parameters.
        buffers: widen buffers in half precision too.

    Yields:
        The types that were replaced.
    """
    found: set[torch.dtype] = set()

    def wide(tensor: Tensor) -> Tensor | None:
        if not is_narrow(tensor):
            return None
        found.add(tensor.dtype)
        return tensor.detach().float()

    with replaced_tensors(model, wide, parameters, buffers):
        yield found


@contextmanager
def replaced_tensors(
    model: nn.Module, make: Callable[[Tensor], Tensor | None], parameters: bool = True, buffers: bool = False
) -> Iterator[None]:
    """Put other tensors in the place of a model's for a while; they themselves are not touched.

    Args:
        make: what takes a tensor's place, or None where it stays. Called once per tensor, so that tied ones stay tied.
        parameters: replace parameters, by parameters.
        buffers: replace buffers.
    """
    made: dict[int, Tensor | None] = {}
    replaced: list[tuple[dict[str, Any], str, Tensor]] = []
    try:
        for module in model.modules():
            own_parameters: dict[str, Any] = module._parameters
            own_buffers: dict[str, Any] = module._buffers
            for table, asked in ((own_parameters, parameters), (own_buffers, buffers)):
                for name, tensor in list(table.items()) if asked else ():
                    if tensor is None:
                        continue
                    if id(tensor) not in made:
                        new = make(tensor)
                        made[id(tensor)] = (
                            nn.Parameter(new) if new is not None and table is own_parameters else new
                        )
                    if (instead := made[id(tensor)]) is not None:
                        replaced.append((table, name, tensor))
                        table[name] = instead
        yield
    finally:
        for table, name, tensor in replaced:
            table[name] = tensor


@contextmanager
def widened_to_run(model: nn.Module, runs: Callable[[], bool]) -> Iterator[set[torch.dtype]]:
    """Compute with parameters in half precision as if they were fp32 for a while; buffers only where nothing else runs.

    Some forwards ask for the type that a buffer has (rotary tables in bf16), so buffers keep theirs if they can. Where
    copies of all parameters would take more than a share of the free memory, or do not reach where a forward has its
    weights from (a list), each is widened where it is used.

    Args:
        runs: tries the model as it is inside, and says whether it ran; asked only where something is in half precision,
            and not of the last way.

    Yields:
        The types that were replaced.
    """
    narrow_buffers = any(is_narrow(buffer) for buffer in model.buffers())
    fit = copies_fit(model)
    ways = [
        (copies, buffers)
        for copies in (fit, not fit)
        for buffers in ((False, True) if narrow_buffers else (False,))
    ]
    for copies, buffers in ways:
        with ExitStack() as stack:
            found = stack.enter_context(widened(model) if copies else at_use(model))
            if buffers:
                found |= stack.enter_context(widened(model, parameters=False, buffers=True))
            if (copies, buffers) == ways[0] and not (found or narrow_buffers or not fit):
                yield found  # nothing is narrow
                return
            if (copies, buffers) == ways[-1] or runs():
                yield found
                return


def copies_fit(model: nn.Module) -> bool:
    """Return whether fp32 copies of a model's parameters fit the memory beside them, with room to compute."""
    narrow = [parameter for parameter in model.parameters() if is_narrow(parameter)]
    if any(parameter.is_meta for parameter in narrow):  # it is elsewhere until it is used
        return False
    needed = sum(4 * parameter.numel() for parameter in narrow if parameter.device.type == "cpu")
    there = free_bytes()
    return not needed or there is None or needed <= COPIES_SHARE * there


@contextmanager
def at_use(model: nn.Module) -> Iterator[set[torch.dtype]]:
    """Widen each parameter in half precision for the operation that uses it; none asks for a gradient meanwhile."""
    narrow = [parameter for parameter in model.parameters() if is_narrow(parameter)]
    types = {parameter.dtype for parameter in narrow}
    asking = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in asking:
            parameter.requires_grad_(False)
        with _Widening(), saved_tensors_hooks(_kept, _restored), _mode_on_the_way_back():
            yield types
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


@contextmanager
def _mode_on_the_way_back() -> Iterator[None]:
    """Leave a mode on while gradients are computed: `autograd.grad` would be handed to it whole, and run without.

    What a checkpoint computes again on its way back uses weights too.
    """
    autograd: Any = torch.autograd
    own = autograd.has_torch_function
    autograd.has_torch_function = lambda tensors: False
    try:
        yield
    finally:
        autograd.has_torch_function = own


class _Widening(WeightsAtUse):
    """fp32 copies of the parameters in half precision; each copy knows its parameter."""

    def concerns(self, parameter: nn.Parameter) -> bool:
        return is_narrow(parameter)

    def whole(self, parameter: nn.Parameter) -> Tensor:
        copy: Tensor = parameter.detach().float()
        storage: Any = copy.untyped_storage()
        storage.stored_narrow = parameter
        return copy

    def of_part(self, result: Tensor) -> Tensor:
        return result.float()


def is_narrow(tensor: Any) -> bool:
    """Return whether a tensor is stored in half precision, also where it is widened for whoever uses it."""
    with torch._C.DisableTorchFunction():
        return bool(tensor.is_floating_point() and tensor.dtype not in WIDE)


def _kept(saved: Tensor) -> Any:
    """What is kept of a tensor for the way back: of a copy, or a view of one, the parameter and where it lies there."""
    narrow = getattr(saved.untyped_storage(), "stored_narrow", None)
    if narrow is None:
        return saved
    return narrow, saved.size(), saved.stride(), saved.storage_offset()


def _restored(kept: Any) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    narrow, size, stride, offset = kept
    wide: Tensor = narrow.detach().float()
    return wide.as_strided(size, stride, offset)
