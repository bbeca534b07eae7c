"""Products of matrices in bf16 and fp16 on a CPU that cannot multiply them: computed in fp32, rounded once.

That is what hardware does that can: products are exact in fp32, sums are fp32's, and the result is rounded. Where there
is no such hardware torch does the same in a loop that takes 8 to 70 times as long (one AMD core without AVX512: 0.095 s
for 512 rows through a matrix of 512 × 1536 in bf16, 0.012 s in fp32; a product of two matrices 1.1 and 79 GFLOP/s).
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

_CHECKS = {
    torch.bfloat16: ("_is_avx512_bf16_supported", "_is_amx_tile_supported"),
    torch.float16: ("_is_amx_fp16_supported",),
}
FEW_ROWS = 4
"""Up to so many rows a product is bound by reading the matrix, and is faster as it is: 0.23 ms for one row through
512 × 1536 in bf16, 0.31 widened; of eight 1.6 and 0.7."""
_PRODUCTS = {
    *(torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm),
    torch.ops.aten.convolution,
}


def cpu_multiplies(dtype: torch.dtype) -> bool:
    """Return whether this machine's CPU multiplies matrices of a half-precision type itself."""
    return any(getattr(torch.cpu, check, lambda: False)() for check in _CHECKS[dtype])


class _InFp32(TorchDispatchMode):
    """Takes products of some types on the CPU; everything else passes."""

    def __init__(self, dtypes: set[torch.dtype]) -> None:
        super().__init__()
        self.dtypes = dtypes

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket not in _PRODUCTS or not self._takes(args[0]) or _few_rows(func, args):
            return func(*args, **kwargs)
        wide = [value.float() if isinstance(value, Tensor) else value for value in args]
        return func(*wide, **kwargs).to(args[0].dtype)

    def _takes(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.device.type == "cpu" and value.dtype in self.dtypes


def _few_rows(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether the left factor is a row or a few: of one matrix, for batches of them are small ones."""
    place = {torch.ops.aten.mm: 0, torch.ops.aten.addmm: 1}.get(func.overloadpacket)
    return place is not None and args[place].shape[0] <= FEW_ROWS


@contextmanager
def products_of(model: nn.Module) -> Iterator[None]:
    """Do so while a model computes that has weights in half precision on the CPU; else nothing is changed."""
    held = {parameter.dtype for parameter in model.parameters() if parameter.device.type == "cpu"}
    narrow = held & _CHECKS.keys()
    with products_in_fp32(*narrow) if narrow else nullcontext():
        yield


@contextmanager
def products_in_fp32(*dtypes: torch.dtype) -> Iterator[None]:
    """Compute half-precision products that this CPU has no instructions for in fp32 for a while.

    Args:
        dtypes: that are looked at; none: all. Seeing every operation takes time, so where the CPU has instructions for
            all of them nothing is watched.
    """
    missing = {dtype for dtype in dtypes or _CHECKS if not cpu_multiplies(dtype)}
    if not missing:
        yield
        return
    with _InFp32(missing):
        yield
