"""Attention's ways round the fused kernel, against the plain formula and PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from loopscope.model.attention import window_mask
from loopscope.ops import attention as module
from loopscope.ops import attention_dropout, attention_weights
from loopscope.ops.attention import attention, attention_with_dropout


def inputs(seq: int = 12, head: int = 8, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    torch.manual_seed(0)
    rows = torch.randn(3, seq, 3 * 4 * head, dtype=dtype).view(3, seq, 12, head).transpose(1, 2)
    return [part.detach().requires_grad_() for part in rows.split(4, dim=1)]


@pytest.mark.parametrize("rows", [5, 64])
@pytest.mark.parametrize("elements", [1, 3 * 144, 2**20])
@pytest.mark.parametrize("window", [None, 3])
def test_dropout_attention_is_the_formula_with_its_own_mask(
    elements: int, rows: int, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mask is read off a value of ones at single places; then value and gradients follow from the formula."""
    monkeypatch.setattr(attention_dropout, "BYTES", elements * 8)
    monkeypatch.setattr(attention_weights, "ROWS", rows)
    query, key, value = inputs()
    mask = None if window is None else window_mask(torch.arange(12), window)
    seen = torch.ones(12, 12, dtype=torch.bool).tril() if mask is None else mask
    weights = (query @ key.transpose(-2, -1) / 8**0.5).masked_fill(~seen, -torch.inf).softmax(-1)
    with torch.no_grad():
        torch.manual_seed(5)  # an identity as value: what comes out are the dropped weights themselves
        eye = torch.eye(12, dtype=torch.float64).expand(3, 4, 12, 12)
        wide = [F.pad(part, (0, 4)) for part in (query, key)]
        dropped = attention_with_dropout(wide[0] * (12 / 8) ** 0.5, wide[1], eye, 0.25, mask)
        kept = dropped / weights.where(seen, 1)
    torch.testing.assert_close(kept[kept != 0], torch.full_like(kept[kept != 0], 4 / 3))
    torch.manual_seed(5)
    found = attention_with_dropout(query, key, value, 0.25, mask)
    expected = (weights * kept) @ value
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(found)
    for one, other in zip(
        torch.autograd.grad(found, [query, key, value], upstream),
        torch.autograd.grad(expected, [query, key, value], upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_training_takes_it_and_evaluation_second_derivatives_and_groups_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[float] = []
    real = module.attention_with_dropout
    monkeypatch.setattr(
        module, "attention_with_dropout", lambda *rest: (calls.append(rest[3]), real(*rest))[1]
    )
    query, key, value = inputs(dtype=torch.float32)
    attention(query, key, value, 0.1)
    assert calls == [0.1]
    attention(query, key, value)
    attention(query, key[:, :2], value[:, :2], 0.1)
    with sdpa_kernel(SDPBackend.MATH):
        attention(query, key, value, 0.1)
    assert calls == [0.1]
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    assert torch.equal(attention(query, key, value), expected)


def test_narrow_heads_in_bf16_are_as_exact_as_fp32() -> None:
    query, key, value = (part.detach().bfloat16().requires_grad_() for part in inputs(seq=32))
    wide = [part.detach().float().requires_grad_() for part in (query, key, value)]
    expected = attention(*wide)
    with torch.autocast("cpu", torch.bfloat16):
        found = attention(query, key, value)
    assert torch.equal(found, expected)
    # A model that is 16 bits wide itself gets its own type: nothing casts for the next product.
    assert torch.equal(attention(query, key, value), expected.bfloat16())
    assert torch.autograd.grad(found.sum(), query)[0].dtype == torch.bfloat16
