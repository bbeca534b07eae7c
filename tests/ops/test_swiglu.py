"""The feed-forward in one piece, and the product that keeps no third tensor."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from loopscope.model import feed_forward
from loopscope.model.config import ModelConfig
from loopscope.model.feed_forward import SwiGLU, silu_times
from loopscope.ops.swiglu import gated


def parts(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = [(2, 3, 4), (6, 4), (6, 4), (4, 6)]
    return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]


def written_out(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)


def test_derivatives_of_both_orders() -> None:
    inputs = parts()
    torch.testing.assert_close(gated(*inputs), written_out(*inputs))
    assert torch.autograd.gradcheck(gated, inputs)
    assert torch.autograd.gradgradcheck(gated, inputs)


def test_second_derivatives_where_the_weights_are_also_in_the_inputs_history() -> None:
    inputs = parts()

    def twice(function: object) -> list[Tensor]:
        x, *weights = inputs
        out = function(function(x, *weights), *weights)  # type: ignore[operator]
        first = torch.autograd.grad(out.square().sum(), inputs, create_graph=True)
        return list(torch.autograd.grad(sum(one.square().sum() for one in first), inputs))

    for one, other in zip(twice(gated), twice(written_out), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("frozen", range(4))
def test_what_wants_no_gradient_gets_none(frozen: int) -> None:
    inputs = parts()
    inputs[frozen].requires_grad_(False)
    wanted = [one for one in inputs if one.requires_grad]
    found = torch.autograd.grad(gated(*inputs).square().sum(), wanted)
    expected = torch.autograd.grad(written_out(*inputs).square().sum(), wanted)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_under_autocast_it_is_what_autocast_does_to_the_formula() -> None:
    inputs = parts(torch.float32)
    found, expected = [], []
    for function, results in ((gated, found), (written_out, expected)):
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
        out = gated(*inputs)
    assert out.dtype == torch.bfloat16
    found = torch.autograd.grad(out.float().sum(), inputs)
    assert [one.dtype for one in found] == [torch.float16] * 4


def test_it_keeps_the_input_two_products_and_the_weights_themselves() -> None:
    inputs = parts(torch.float32)
    saved: list[Tensor] = []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t)
    with hooks, torch.autocast("cpu", torch.bfloat16):
        gated(*inputs)
    kept = [one for one in saved if all(one.data_ptr() != own.data_ptr() for own in inputs)]
    assert sorted(tuple(one.shape) for one in kept) == [(2, 3, 4), (2, 3, 6), (2, 3, 6)]
    assert {one.dtype for one in kept} == {torch.bfloat16}


def test_a_layer_takes_it_in_training_and_not_where_somebody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(feed_forward, "gated", lambda *rest: (calls.append(1), gated(*rest))[1])
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
        out = checkpoint(gated, *inputs, use_reentrant=False)
    assert not [one for one in saved if one.shape == (2, 3, 6)]
    for one, other in zip(
        torch.autograd.grad(out.sum(), inputs),
        torch.autograd.grad(written_out(*inputs).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_silu_times_is_the_product_and_keeps_no_third_tensor() -> None:
    torch.manual_seed(0)
    gate, up = (torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(silu_times, (gate, up))
    assert torch.autograd.gradgradcheck(silu_times, (gate, up))
    gate, up = (part.detach().bfloat16().requires_grad_() for part in (gate, up))
    saved: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        found = silu_times(gate, up)
    assert len(saved) == 2
    expected = F.silu(gate) * up
    assert torch.equal(found, expected)
    upstream = torch.randn_like(found)
    for one, other in zip(
        torch.autograd.grad(found, [gate, up], upstream),
        torch.autograd.grad(expected, [gate, up], upstream),
        strict=True,
    ):
        assert torch.equal(one, other)
