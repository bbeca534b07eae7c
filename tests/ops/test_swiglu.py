"""The feed-forward in one piece: its derivatives, what it keeps, where it runs."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from loopscope.model.config import ModelConfig
from loopscope.model.feed_forward import SwiGLU
from loopscope.ops.swiglu import swiglu


def parts(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = [(2, 3, 4), (6, 4), (6, 4), (4, 6)]
    return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]


def written_out(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)


def test_derivatives_of_both_orders() -> None:
    inputs = parts()
    torch.testing.assert_close(swiglu(*inputs), written_out(*inputs))
    assert torch.autograd.gradcheck(swiglu, inputs)
    assert torch.autograd.gradgradcheck(swiglu, inputs)


def test_second_derivatives_where_the_weights_are_also_in_the_inputs_history() -> None:
    inputs = parts()

    def twice(function: object) -> list[Tensor]:
        x, *weights = inputs
        out = function(function(x, *weights), *weights)  # type: ignore[operator]
        first = torch.autograd.grad(out.square().sum(), inputs, create_graph=True)
        return list(torch.autograd.grad(sum(one.square().sum() for one in first), inputs))

    for one, other in zip(twice(swiglu), twice(written_out), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("frozen", range(4))
def test_what_wants_no_gradient_gets_none(frozen: int) -> None:
    inputs = parts()
    inputs[frozen].requires_grad_(False)
    wanted = [one for one in inputs if one.requires_grad]
    found = torch.autograd.grad(swiglu(*inputs).square().sum(), wanted)
    expected = torch.autograd.grad(written_out(*inputs).square().sum(), wanted)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_under_autocast_it_is_what_autocast_does_to_the_formula() -> None:
    inputs = parts(torch.float32)
    found, expected = [], []
    for function, results in ((swiglu, found), (written_out, expected)):
        with torch.autocast("cpu", torch.bfloat16):
            out = function(*inputs)
        assert out.dtype == torch.bfloat16
        results += [out.float(), *torch.autograd.grad(out.float().square().sum(), inputs)]
    assert torch.equal(found[0], expected[0])
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.02 * float(other.abs().max()))


def test_another_narrow_type_follows_autocast_too() -> None:
    inputs = [one.detach().half().requires_grad_() for one in parts(torch.float32)]
    with torch.autocast("cpu", torch.bfloat16):
        out = swiglu(*inputs)
    assert out.dtype == torch.bfloat16
    found = torch.autograd.grad(out.float().sum(), inputs)
    assert [one.dtype for one in found] == [torch.float16] * 4


def test_it_keeps_the_input_two_products_and_the_weights_themselves() -> None:
    inputs = parts(torch.float32)
    saved: list[Tensor] = []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t)
    with hooks, torch.autocast("cpu", torch.bfloat16):
        swiglu(*inputs)
    kept = [one for one in saved if all(one.data_ptr() != own.data_ptr() for own in inputs)]
    assert sorted(tuple(one.shape) for one in kept) == [(2, 3, 4), (2, 3, 6), (2, 3, 6)]
    assert {one.dtype for one in kept} == {torch.bfloat16}


def test_a_layer_takes_it_in_training_and_not_where_somebody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    counted = lambda *rest: (calls.append(1), swiglu(*rest))[1]  # noqa: E731
    monkeypatch.setattr("loopscope.ops.swiglu.swiglu", counted)
    layer = SwiGLU(ModelConfig(dim=8, heads=2))
    x = torch.randn(2, 3, 8)
    out = layer(x)
    assert calls == [1]
    torch.testing.assert_close(out, written_out(x, layer.gate.weight, layer.up.weight, layer.down.weight))
    with torch.no_grad():
        layer(x)
    heard: list[Tensor] = []
    layer.up.register_forward_hook(lambda module, given, got: heard.append(got))
    torch.testing.assert_close(layer(x), out)
    assert calls == [1]
    assert len(heard) == 1


def test_a_checkpoint_frees_what_it_keeps() -> None:
    inputs = parts()
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        out = checkpoint(swiglu, *inputs, use_reentrant=False)
    assert not [one for one in saved if one.shape == (2, 3, 6)]
    for one, other in zip(
        torch.autograd.grad(out.sum(), inputs),
        torch.autograd.grad(written_out(*inputs).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
