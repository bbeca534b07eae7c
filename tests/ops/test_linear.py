"""A matrix that does its norm's work too, against the norm and the matrix: values, derivatives, what is kept."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loopscope.model.config import ModelConfig
from loopscope.model.layer import Layer
from loopscope.ops.linear import shared_linear
from loopscope.ops.rms_norm import RMSNorm
from loopscope.ops.swiglu import swiglu


def parts(dtype: torch.dtype = torch.float64) -> tuple[Tensor, RMSNorm, list[Tensor]]:
    torch.manual_seed(0)
    norm = RMSNorm(4, eps=1e-3, for_matmul=True).to(dtype)
    norm.weight.data.normal_()
    matrices = [torch.randn(shape, dtype=dtype).requires_grad_() for shape in ((6, 4), (6, 4), (4, 6))]
    return torch.randn(2, 3, 4, dtype=dtype).requires_grad_(), norm, matrices


def operations(norm: RMSNorm) -> dict[str, tuple[object, object]]:
    def mixed(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
        normal = norm(x)
        return F.linear(F.silu(F.linear(normal, gate)) * F.linear(normal, up), down)

    return {
        "linear": (
            lambda x, *matrices: shared_linear(norm(x), matrices[0]),
            lambda x, *matrices: F.linear(norm(x), matrices[0]),
        ),
        "swiglu": (lambda x, *matrices: swiglu(norm(x), *matrices), mixed),
    }


@pytest.mark.parametrize("name", ["linear", "swiglu"])
def test_values_and_derivatives_of_both_orders(name: str) -> None:
    x, norm, matrices = parts()
    found, expected = operations(norm)[name]
    torch.testing.assert_close(found(x, *matrices), expected(x, *matrices))  # type: ignore[operator]
    wanted = [x, norm.weight, *(matrices[:1] if name == "linear" else matrices)]

    def twice(function: object) -> list[Tensor]:
        out = function(function(x, *matrices)[..., :4], *matrices)  # type: ignore[operator]
        first = torch.autograd.grad(out.square().sum(), wanted, create_graph=True)
        second = torch.autograd.grad(sum(one.square().sum() for one in first), wanted)
        plain = torch.autograd.grad(function(x, *matrices).square().sum(), wanted)  # type: ignore[operator]
        return [*first, *second, *plain]

    for one, other in zip(twice(found), twice(expected), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["linear", "swiglu"])
def test_the_normalised_state_is_not_kept(name: str) -> None:
    x, norm, matrices = parts(torch.float32)
    saved: list[Tensor] = []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t)
    with hooks, torch.autocast("cpu", torch.bfloat16):
        found = operations(norm)[name][0](x, *matrices)  # type: ignore[operator]
    assert found.dtype == torch.bfloat16
    assert {one.data_ptr() for one in saved if one.shape == x.shape} == {x.data_ptr()}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_matrix_by_itself_is_the_matrix(precision: str) -> None:
    """Of any leading shape, to the second derivative; twice used, so that its gradient is gathered."""
    torch.manual_seed(0)
    x, matrix = torch.randn(2, 7, 12).requires_grad_(), torch.randn(12, 12).requires_grad_()
    results = []
    for way in (shared_linear, F.linear):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            out = way(torch.tanh(way(x, matrix)), matrix)
        first = torch.autograd.grad(out.float().square().sum(), [x, matrix], create_graph=True)
        second = torch.autograd.grad(first[0].square().sum(), [x, matrix])
        again = torch.autograd.grad(way(x, matrix).square().sum(), [x, matrix])
        results.append([out, *first, *second, *again])
    rtol = 1e-5 if precision == "fp32" else 0.03
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=rtol * float(other.detach().abs().max()))


def test_a_layer_computes_what_its_parts_do_and_spares_what_a_listener_hears() -> None:
    torch.manual_seed(0)
    layer = Layer(ModelConfig(dim=16, heads=2, dropout=0.0)).train()
    x = torch.randn(2, 5, 16).requires_grad_()
    between = x + layer.attention(layer.attention_norm(x))
    expected = between + layer.feed_forward(layer.feed_forward_norm(between))
    given = x.detach().clone()
    out = layer(x)
    torch.testing.assert_close(out, expected)
    assert torch.equal(x, given)
    heard: dict[str, Tensor] = {}
    for name in ("attention_norm", "attention", "feed_forward"):
        module = getattr(layer, name)
        module.register_forward_hook(lambda module, given, got, name=name: heard.update({name: got}))
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(heard["attention_norm"], layer.attention_norm(x))
    torch.testing.assert_close(heard["attention"], between - x)
    torch.testing.assert_close(heard["feed_forward"], expected - between)


@pytest.mark.parametrize("change", ["identity", "forward hook", "backward hook"])
def test_a_layers_dropout_may_be_another_module_or_be_heard(change: str) -> None:
    """It is called then, and not taken into the residual's sum."""
    torch.manual_seed(0)
    layer, heard = Layer(ModelConfig(dim=16, heads=2, dropout=0.4)).train(), []
    layer.attention.dropout = 0.0
    if change == "identity":
        layer.dropout = nn.Identity()
    elif change == "forward hook":
        layer.dropout.register_forward_hook(lambda module, given, got: heard.append(got))
    else:
        layer.dropout.register_full_backward_hook(lambda module, below, above: heard.append(above))
    x = torch.randn(2, 50, 16).requires_grad_()
    torch.manual_seed(1)
    out = layer(x)
    out.sum().backward()
    between = x + layer.attention(layer.attention_norm(x))
    added = layer.feed_forward(layer.feed_forward_norm(between))
    if change == "identity":
        torch.testing.assert_close(out, between + added)
    else:
        assert len(heard) == 1
        assert 0.3 < float((out == between).float().mean()) < 0.5
