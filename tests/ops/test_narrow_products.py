"""Half-precision products in fp32: the numbers that torch's own have, and only where the CPU has none itself."""

from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from loopscope.evaluation.depth.curve import depth_curves
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.ops import narrow_products
from loopscope.ops.narrow_products import FEW_ROWS, products_in_fp32, products_of

HALF = (torch.bfloat16, torch.float16)


@pytest.fixture(autouse=True)
def no_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrow_products, "cpu_multiplies", lambda dtype: False)


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


WAYS = {
    "linear": lambda cast: functional.linear(cast(_random(2, 9, 32)), cast(_random(7, 32))),
    "linear with a bias": lambda cast: functional.linear(
        cast(_random(2, 9, 32)), cast(_random(7, 32)), cast(_random(7))
    ),
    "one row": lambda cast: cast(_random(1, 32)) @ cast(_random(32, 7)),
    "batches": lambda cast: cast(_random(3, 5, 32)) @ cast(_random(3, 32, 7)),
    "einsum": lambda cast: torch.einsum("bsd,de->bse", cast(_random(2, 9, 32)), cast(_random(32, 7))),
    "convolution": lambda cast: functional.conv1d(cast(_random(2, 8, 16)), cast(_random(8, 1, 4)), groups=8),
}


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("name", WAYS)
def test_a_product_is_the_exact_one_of_the_rounded_numbers_rounded_once(
    name: str, dtype: torch.dtype
) -> None:
    exact = WAYS[name](lambda value: value.to(dtype).double())
    with products_in_fp32():
        found = WAYS[name](lambda value: value.to(dtype))
    assert found.dtype == dtype
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(found.double(), exact, rtol=0.51 * step, atol=1e-6)
    own = WAYS[name](lambda value: value.to(dtype))
    torch.testing.assert_close(found, own, rtol=2 * step, atol=step / 8)


def test_a_product_that_does_not_fit_into_fp16_is_infinite() -> None:
    with products_in_fp32():
        assert (torch.full((1, 4), 300.0).half() @ torch.full((4, 1), 300.0).half()).isinf().all()


def test_autocast_is_taken_too() -> None:
    left, right = _random(4, 32), _random(32, 8)
    with products_in_fp32(), torch.autocast("cpu", torch.bfloat16):
        found = left @ right
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(
        found.float(), left.bfloat16().float() @ right.bfloat16().float(), rtol=4e-3, atol=1e-3
    )


class Seen(TorchDispatchMode):
    """Notes the types that products reach torch in, and of how many rows they are."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: list[torch.dtype] = []
        self.rows: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket is torch.ops.aten.mm:
            self.dtypes.append(args[0].dtype)
            self.rows.append(len(args[0]))
        return func(*args, **(kwargs or {}))


def _reached(rows: int, context: AbstractContextManager[None]) -> list[torch.dtype]:
    with Seen() as seen, context:
        _random(rows, 4).bfloat16() @ _random(4, 2).bfloat16()
    return seen.dtypes


def test_products_reach_torch_in_fp32_but_for_a_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _reached(FEW_ROWS + 1, products_in_fp32()) == [torch.float32]
    assert _reached(FEW_ROWS, products_in_fp32()) == [torch.bfloat16]
    monkeypatch.setattr(narrow_products, "cpu_multiplies", lambda dtype: True)
    assert _reached(FEW_ROWS + 1, products_in_fp32()) == [torch.bfloat16]


def test_a_model_in_fp32_is_left_alone() -> None:
    linear = nn.Linear(4, 2)
    assert _reached(FEW_ROWS + 1, products_of(linear)) == [torch.bfloat16]
    assert _reached(FEW_ROWS + 1, products_of(linear.bfloat16())) == [torch.float32]


def test_types_that_a_model_does_not_have_are_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mode sees every operation, which takes time: not for fp16 where all weights are bf16."""
    monkeypatch.setattr(narrow_products, "cpu_multiplies", lambda dtype: dtype == torch.bfloat16)
    with products_of(nn.Linear(4, 2).bfloat16()):
        assert torch._C._len_torch_dispatch_stack() == 0
    with products_of(nn.Linear(4, 2).half()):
        assert torch._C._len_torch_dispatch_stack() == 1


def test_a_curve_of_a_model_in_bf16_is_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    config = ModelConfig(dim=32, heads=2, loops=2, vocabulary=64, sequence=16, initialisation="scaled")
    model, ids = LoopedTransformer(config).bfloat16(), torch.randint(64, (2, 16))
    found = depth_curves(model, [(ids, ids)], 1.0)[0]
    with Seen() as seen:
        depth_curves(model, [(ids, ids)], 1.0)
    wide = [dtype for dtype, rows in zip(seen.dtypes, seen.rows, strict=True) if rows > FEW_ROWS]
    assert set(wide) == {torch.float32}
    monkeypatch.setattr(narrow_products, "cpu_multiplies", lambda dtype: True)
    own = depth_curves(model, [(ids, ids)], 1.0)[0]
    for row, plain in zip(found.per_loop, own.per_loop, strict=True):
        assert row.loss == pytest.approx(plain.loss, rel=5e-3)
