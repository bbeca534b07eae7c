"""Weights in half precision computed with in fp32: copies of all, and copies that live for one operation, agree."""

import gc

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from loopscope.wide_weights import at_use, copies_fit, widened, widened_to_run


class Assorted(nn.Module):
    """Weights reached in many ways: layers, a tied head, experts one by one, views, attributes, a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(20, 8)
        self.layer, self.norm = nn.Linear(8, 8), nn.RMSNorm(8)
        self.experts = nn.Parameter(torch.randn(3, 8, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.gain = nn.Parameter(torch.randn(8))

    def enter(self, ids: Tensor) -> Tensor:
        entered: Tensor = self.tokens(ids)
        return entered

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden.to(self.layer.weight.dtype)
        hidden = hidden + self.layer(self.norm(hidden)) + self.attention(hidden, hidden, hidden)[0]
        for expert in range(3):
            hidden = hidden + (hidden @ self.experts[expert].T).tanh()
        hidden = hidden @ self.layer.weight.T + hidden @ self.experts.transpose(1, 2)[0]
        return nn.functional.linear(hidden * (1 + self.gain), self.tokens.weight)


def narrow() -> Assorted:
    torch.manual_seed(0)
    return Assorted().bfloat16().eval()


def computed(model: Assorted) -> list[Tensor]:
    hidden = model.enter(torch.arange(6).view(2, 3)).detach().requires_grad_()
    logits = model(hidden)
    return [hidden.detach(), logits.detach(), *torch.autograd.grad(logits.logsumexp(-1).sum(), hidden)]


@pytest.mark.smoke  # it rests on private names of torch
def test_both_ways_give_the_same_numbers_and_leave_the_weights() -> None:
    model = narrow()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    with widened(model):
        plain = computed(model)
    with at_use(model) as types:
        assert types == {torch.bfloat16}
        found = computed(model)
    assert all(
        one.dtype == torch.float32
        and torch.allclose(one, other, rtol=1e-6, atol=1e-6)  # bits are the BLAS' own
        for one, other in zip(plain, found, strict=True)
    )
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad
        assert torch.equal(parameter, before[name])
    assert computed(model)[1].dtype == torch.bfloat16


def wide_copies() -> list[Tensor]:
    """Matrices of the size of the layer's in fp32 that are alive."""
    alive = [each for each in gc.get_objects() if type(each) is Tensor]
    return [each for each in alive if each.shape == (8, 8) and each.dtype == torch.float32]


def test_nothing_wide_of_a_weight_is_kept_for_the_way_back() -> None:
    model, kept = narrow(), []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    hidden = model.enter(torch.arange(6).view(2, 3)).float().requires_grad_()
    with widened(model), saved_tensors_hooks(pack, lambda tensor: tensor):
        model.layer(hidden)
    assert any(tensor.shape == (8, 8) for tensor in kept)  # by copies of all there is one
    with at_use(model):
        before = len(wide_copies())
        out = model.layer(hidden)
        assert len(wide_copies()) == before
        (gradient,) = torch.autograd.grad(out.sum(), hidden)
        assert len(wide_copies()) == before
    assert torch.equal(gradient, model.layer.weight.float().sum(0).expand_as(hidden))


@pytest.mark.smoke  # it rests on private names of torch
def test_what_a_checkpoint_computes_again_is_wide_too() -> None:
    model = narrow()
    hidden = model.enter(torch.arange(6).view(2, 3)).float().detach().requires_grad_()

    def gradient() -> Tensor:
        out = checkpoint(model, hidden, use_reentrant=False)
        (found,) = torch.autograd.grad(out.logsumexp(-1).sum(), hidden)
        return found

    with widened(model):
        plain = gradient()
    with at_use(model):
        assert torch.allclose(gradient(), plain, rtol=1e-6, atol=1e-5)


def test_memory_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    model = narrow()
    assert copies_fit(model)
    monkeypatch.setattr("loopscope.wide_weights.free_bytes", lambda: 100)
    assert not copies_fit(model)
    assert copies_fit(model.float())
    with widened_to_run(model.bfloat16(), lambda: True):
        assert model.layer.weight.untyped_storage().nbytes() == 2 * 64  # stored as it was
        assert computed(model)[1].dtype == torch.float32
    with widened_to_run(model, lambda: False):  # what does not run that way gets copies
        assert model.layer.weight.untyped_storage().nbytes() == 4 * 64


def test_buffers_are_widened_where_nothing_else_runs() -> None:
    model = narrow()
    model.register_buffer("table", torch.ones(2, dtype=torch.bfloat16))
    with widened_to_run(model, lambda: True):
        assert model.table.dtype == torch.bfloat16
    with widened_to_run(model, lambda: False):
        assert model.table.dtype == torch.float32
