"""How a model is put into another number format: which weights, by copies or where they are used, and back again."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from loopscope.audit import number_formats
from loopscope.audit.number_formats import in_format, shared_matrices
from loopscope.audit.rounding import measure_rounding
from loopscope.recurrence import LoopContext, unroll
from tests.audit.fixtures import IDS, LABELS, make
from tests.audit.toy_maps import DIM, TOKENS, Toy, rounding, through_matrix


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_a_large_model_is_rounded_where_its_weights_are_used(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make().eval()
    (copied,) = measure_rounding(model, IDS, LABELS, [name], 8)
    monkeypatch.setattr(number_formats, "COPIED_BYTES", 0)
    monkeypatch.setattr(number_formats, "replaced_tensors", only_buffers(number_formats.replaced_tensors))
    (used,) = measure_rounding(model, IDS, LABELS, [name], 8)
    assert used == copied
    assert used.outcome != "not measured"


def only_buffers(replaced: Callable[..., Any]) -> Callable[..., Any]:
    """What replaces tensors, and fails where it would copy weights."""

    def checked(model: nn.Module, make: Any, parameters: bool, buffers: bool) -> Any:
        assert not parameters
        return replaced(model, make, parameters, buffers)

    return checked


def test_a_large_model_that_reaches_its_weights_its_own_way_is_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(number_formats, "COPIED_BYTES", 0)
    model = Toy(lambda model, hidden, loop, context: hidden @ model.matrix.data.T)
    assert rounding(model, "bf16").outcome != "not measured"


def test_integers_are_of_the_shared_matrices_alone_and_are_put_back() -> None:
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        first = next(iter(unroll(model, IDS)))
    shared = shared_matrices(first)
    named = {name for name, parameter in model.named_parameters() if id(parameter) in shared}
    assert named
    assert all(name.startswith("layers.") for name in named)
    with in_format(model, "int4", shared, buffers=False):
        inside = {name: value.clone() for name, value in model.state_dict().items()}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for name, value in inside.items():
        if name not in named:
            assert torch.equal(value, before[name])
            continue
        step = before[name].abs().amax(dim=1, keepdim=True) / 7
        torch.testing.assert_close(value / step, (before[name] / step).round(), rtol=0, atol=1e-4)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_matrix_stored_inputs_first_has_its_channels_in_columns() -> None:
    """transformers' Conv1D, of GPT-2."""

    class Conv1D(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(5)))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight

    class Columns(Toy):
        def __init__(self) -> None:
            super().__init__(through_matrix)
            self.conv = Conv1D()

        def core(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
            return hidden + 0.1 * self.conv(hidden)

    model = Columns().eval()
    with torch.no_grad():
        first = next(iter(unroll(model, TOKENS)))
    shared = shared_matrices(first)
    assert set(shared) == {id(model.conv.weight)}
    own = model.conv.weight.detach().clone()
    with in_format(model, "int8", shared, buffers=False):
        step = own.abs().amax(dim=0, keepdim=True) / 127
        torch.testing.assert_close(model.conv.weight / step, (own / step).round(), rtol=0, atol=1e-3)
