"""Number formats by name, and a model's weights put into one for a while.

bf16, fp16       every weight stored in it, every operation computed in it; but for what a model keeps in fp32
bf16-autocast    weights in fp32, products in bf16: as most models are trained
int8, int4, fp8  the matrices of the shared layers alone, one scale per output channel, symmetric and to the
                 nearest; products in fp32. What weight-only quantisation does, without its speed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from loopscope.audit.format_at_use import in_type_at_use, is_widened_at_use, matrices_in_use, rounded_at_use
from loopscope.audit.kept_in_fp32 import kept_in_fp32
from loopscope.guards import device_of
from loopscope.ops.narrow_products import products_in_fp32
from loopscope.recurrence import LoopState, next_hidden
from loopscope.weights_at_use import stored
from loopscope.wide_weights import replaced_tensors

COPIED_BYTES = 2**28
"""Of weights in another format beside those there are, at most; of more, each is rounded where it is used."""
ToFormat = Callable[[Tensor, int], Tensor]
"""A matrix and the axis of its output channels, to the numbers that the format has for it, in fp32."""


@dataclass(frozen=True)
class NumberFormat:
    """One format: what is stored in it, and what is computed in it.

    Attributes:
        dtype: of all weights and of arithmetic, or of autocast; None: weights of shared matrices alone are rounded.
        autocast: weights stay in fp32, products are in `dtype`.
        to_format: what a shared matrix becomes, where `dtype` is None.
    """

    dtype: torch.dtype | None = None
    autocast: bool = False
    to_format: ToFormat | None = None


def _integer(bits: int) -> ToFormat:
    largest = 2 ** (bits - 1) - 1

    def rounded(matrix: Tensor, outputs: int) -> Tensor:
        step = _largest_of_channel(matrix, outputs) / largest
        nearest: Tensor = (matrix / step).round().clamp(-largest, largest) * step
        return nearest

    return rounded


def _fp8(matrix: Tensor, outputs: int) -> Tensor:
    step = _largest_of_channel(matrix, outputs) / torch.finfo(torch.float8_e4m3fn).max
    return (matrix / step).to(torch.float8_e4m3fn).to(matrix.dtype) * step


def _largest_of_channel(matrix: Tensor, outputs: int) -> Tensor:
    """The largest absolute weight of each output channel; experts have channels of their own."""
    inputs = [matrix.ndim - 1 if outputs != matrix.ndim - 1 else matrix.ndim - 2]
    if outputs == 0:
        inputs = list(range(1, matrix.ndim))
    largest: Tensor = matrix.abs().amax(dim=inputs, keepdim=True)
    return largest.clamp(min=torch.finfo(matrix.dtype).tiny)


FORMATS: Mapping[str, NumberFormat] = {
    "bf16": NumberFormat(torch.bfloat16),
    "fp16": NumberFormat(torch.float16),
    "bf16-autocast": NumberFormat(torch.bfloat16, autocast=True),
    "int8": NumberFormat(to_format=_integer(8)),
    "int4": NumberFormat(to_format=_integer(4)),
    "fp8": NumberFormat(to_format=_fp8),
}
"""Number formats by the name that settings and reports give them."""


def check_formats(names: Any) -> tuple[str, ...]:
    """Return the names of formats, each once: `"bf16,int8"`, a sequence of names, `"none"` or None for none.

    Raises:
        ValueError: what is no name, or the name of none; lists those there are.
    """
    if names is None:
        return ()
    given = names.split(",") if isinstance(names, str) else names
    if not isinstance(given, Sequence) or not all(isinstance(name, str) for name in given):
        raise ValueError(
            f"rounding is {names!r}; it must be names of {', '.join(FORMATS)}, several between commas, or none"
        )
    parts = [part.strip() for part in given if part.strip()]
    if not parts and isinstance(names, str):
        raise ValueError(
            f"rounding is {names!r}, which names no format; name some of {', '.join(FORMATS)}, or none"
        )
    if parts in ([], ["none"]):
        return ()
    for part in parts:
        if part not in FORMATS:
            raise ValueError(
                f"rounding is {part!r}; it must be of {', '.join(FORMATS)}, several between commas, or none"
            )
    return tuple(dict.fromkeys(parts))


def shared_matrices(state: LoopState) -> dict[int, int]:
    """Return the matrices that one loop applies, by id of the parameter: the axis of their output channels.

    Found by a gradient: they are what one carry and core after `state` reads, whoever wrote the model. Where weights
    are widened at use no gradient reaches them, and what operations use is looked at.
    """
    axes = output_axes(state.model)
    if is_widened_at_use(state.model):
        return {key: axes[key] for key in matrices_in_use(state) if key in axes}
    parameters = [parameter for parameter in state.model.parameters() if parameter.is_floating_point()]
    asking = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            later = next_hidden(state, state.hidden.detach())
            if not later.requires_grad:
                return {}
            found = torch.autograd.grad(later.float().sum(), parameters, allow_unused=True)
    finally:
        for parameter, asked in zip(parameters, asking, strict=True):
            parameter.requires_grad_(asked)
    return {
        id(parameter): axis
        for parameter, gradient in zip(parameters, found, strict=True)
        if gradient is not None and (axis := axes.get(id(parameter))) is not None
    }


def output_axes(model: nn.Module) -> dict[int, int]:
    """Return the axis of output channels of every matrix of a model, by id of the parameter."""
    transposed = {id(module.weight) for module in model.modules() if _stores_inputs_first(module)}
    convolved = {id(module.weight) for module in model.modules() if isinstance(module, _CONVOLUTIONS)}
    return {
        id(parameter): 0
        if id(parameter) in convolved
        else parameter.dim() - (1 if id(parameter) in transposed else 2)
        for parameter in model.parameters()
        if parameter.dim() >= 2
    }


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _stores_inputs_first(module: nn.Module) -> bool:
    """Whether a module is transformers' Conv1D (GPT-2), a linear map whose matrix is [inputs, outputs]."""
    return type(module).__name__ == "Conv1D" and isinstance(getattr(module, "weight", None), nn.Parameter)


def is_exact(model: nn.Module, name: str, shared: Mapping[int, int]) -> bool:
    """Return whether a format of matrices has the numbers of all shared ones, but for rounding of the last digit."""
    to_format = FORMATS[name].to_format
    assert to_format is not None, f"{name} is of arithmetic, not of matrices"
    for parameter in model.parameters():
        if (outputs := shared.get(id(parameter))) is None:
            continue
        own = stored(parameter).float()
        if float((to_format(own, outputs) - own).abs().max()) > 1e-6 * float(own.abs().max()):
            return False
    return True


def copies_are_large(model: nn.Module, name: str) -> bool:
    """Return whether copies of all weights in a format would take more than `COPIED_BYTES`.

    Never of a format that rounds matrices alone: to find their numbers anew at each use takes longer than the products.
    """
    chosen = FORMATS[name]
    if chosen.dtype is None or chosen.autocast:
        return False
    return sum(weight.numel() for weight in model.parameters()) * chosen.dtype.itemsize > COPIED_BYTES


@contextmanager
def in_format(
    model: nn.Module, name: str, shared: Mapping[int, int], buffers: bool, copies: bool = True
) -> Iterator[None]:
    """Put a model's weights into a format for a while; tied ones stay tied.

    Those in fp32 are replaced by copies of all, if asked. Where they are in half precision, each is rounded as it is
    used. What a model of transformers keeps in fp32 when it is loaded in a format stays in it.

    Args:
        shared: what `shared_matrices` returns.
        buffers: cast buffers too, where the format is one of arithmetic. Most models keep theirs in fp32.
        copies: of weights in fp32; else each is rounded as it is used, too.
    """
    chosen = FORMATS[name]

    kept = kept_in_fp32(model, chosen.dtype)

    def rounded(tensor: Tensor) -> Tensor | None:
        if chosen.to_format is not None:
            outputs = shared.get(id(tensor))
            return None if outputs is None else chosen.to_format(tensor.detach(), outputs)
        if chosen.autocast or not tensor.is_floating_point() or id(tensor) in kept:
            return None
        return tensor.detach().to(chosen.dtype)

    as_used = is_widened_at_use(model) or not copies
    device = device_of(model).type
    with ExitStack() as stack:
        stack.enter_context(
            replaced_tensors(
                model, rounded, parameters=not as_used, buffers=buffers and chosen.to_format is None
            )
        )
        if as_used and chosen.to_format is not None:
            stack.enter_context(rounded_at_use(chosen.to_format, shared))
        elif as_used and chosen.dtype is not None and not chosen.autocast:
            stack.enter_context(in_type_at_use(chosen.dtype, kept))
        stack.enter_context(torch.no_grad())
        if chosen.dtype is not None:
            stack.enter_context(products_in_fp32(chosen.dtype))
        stack.enter_context(torch.autocast(device, chosen.dtype, enabled=chosen.autocast))
        yield
