"""Which numbers are not finite, in any format, and for how much memory."""

import sys

import pytest
import torch
from torch import Tensor

from benchmarks.high_water import peak_of
from loopscope.numerics import not_finite

FORMATS = (
    torch.float64,
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
)


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
def test_a_number_that_is_not_finite_is_found_in_every_format(dtype: torch.dtype) -> None:
    weights = torch.zeros(3, 2**19)  # fp8 is looked at in pieces
    assert not_finite([("w", weights.to(dtype))]) is None
    weights[2, 5] = torch.nan
    assert not_finite([("v", torch.ones(2)), ("w", weights.to(dtype))]) == (
        "w has 1 of 1,572,864 numbers that are not finite (the first, nan, at [2, 5])"
    )


def test_whole_numbers_and_tensors_without_memory_are_passed_over() -> None:
    nothing: list[Tensor] = [torch.arange(3), torch.empty(3, device="meta"), torch.empty(0)]
    assert not_finite([(str(place), tensor) for place, tensor in enumerate(nothing)]) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the mark is Linux's")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float8_e4m3fn], ids=str)
def test_looking_takes_no_memory(dtype: torch.dtype) -> None:
    weights = torch.zeros(2**26).to(dtype)
    assert peak_of(lambda: not_finite([("w", weights)])) < 2**25
