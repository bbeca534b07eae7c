"""The chunked cross-entropy equals the plain one, in value and in every gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loopscope.objectives import token_loss
from loopscope.objectives.token_loss import IGNORE_INDEX, chunked_cross_entropy, plain_cross_entropy


def problem(batch: int, seq: int, vocab: int) -> tuple[torch.nn.Linear, torch.Tensor, torch.Tensor]:
    head = torch.nn.Linear(8, vocab, bias=False)
    features = (3 * torch.randn(batch, seq, 8)).requires_grad_()
    labels = torch.randint(vocab, (batch, seq))
    labels[0, 0] = IGNORE_INDEX
    return head, features, labels


@given(
    batch=st.integers(1, 3),
    seq=st.integers(1, 9),
    vocab=st.integers(2, 40),
    elements=st.integers(1, 400),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=40)
def test_equal_in_value_and_gradient(batch: int, seq: int, vocab: int, elements: int, seed: int) -> None:
    torch.manual_seed(seed)
    head, features, labels = problem(batch, seq, vocab)
    upstream = torch.randn(batch, seq)
    results = []
    before, token_loss.CHUNK_ELEMENTS = token_loss.CHUNK_ELEMENTS, elements
    try:
        for function in (plain_cross_entropy, chunked_cross_entropy):
            loss = function(head, features, labels)
            gradients = torch.autograd.grad((loss * upstream).sum(), [features, head.weight])
            results.append([loss.detach(), *gradients])
    finally:
        token_loss.CHUNK_ELEMENTS = before
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)


def test_exact_under_bf16_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(token_loss, "CHUNK_ELEMENTS", 100)
    head, features, labels = problem(2, 16, 30)
    with torch.autocast("cpu", torch.bfloat16):
        plain = plain_cross_entropy(head, features, labels)
        chunked = chunked_cross_entropy(head, features, labels)
    assert plain.dtype == torch.float32
    assert torch.allclose(plain, chunked, atol=1e-6)


def test_no_more_than_a_chunk_of_logits_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """What autograd keeps between forward and backward holds no tensor as wide as the vocabulary."""
    monkeypatch.setattr(token_loss, "CHUNK_ELEMENTS", 500)
    head, features, labels = problem(4, 16, 100)
    widest = []

    def run(function: object) -> int:
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
            loss = function(head, features, labels)
        loss.sum().backward()
        wide = [t.numel() for t in saved if t.ndim == 2 and t.shape[-1] == 100]
        widest.append(sum(wide))
        return sum(wide)

    assert run(plain_cross_entropy) >= 64 * 100
    assert run(chunked_cross_entropy) == 0


def test_ignored_labels_cost_nothing() -> None:
    head, features, labels = problem(1, 3, 10)
    loss = chunked_cross_entropy(head, features, labels)
    assert float(loss[0, 0]) == 0
    assert float(loss[0, 1]) > 0
