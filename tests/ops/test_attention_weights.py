"""Attention's weights by places and a seed: masks, both passes against the formula, and attention whole."""

import math

import pytest
import torch
from torch import Tensor

from loopscope.ops import attention, attention_dropout
from loopscope.ops.attention_weights import attention_weights_, attention_weights_backward_
from loopscope.ops.dropout_masks import kept, place_of, short_seed

SEQ = 37


def hidden() -> Tensor:
    return torch.zeros(SEQ, SEQ).masked_fill_(~torch.ones(SEQ, SEQ, dtype=torch.bool).tril(), -math.inf)


@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_masks_keep_the_share_they_should_and_no_two_alike(dropout: float) -> None:
    seed = short_seed(2**61 + 12345)
    mask = kept((8, 128, 128), place_of(0, 0, 128), seed, dropout).float()
    error = math.sqrt(dropout * (1 - dropout) / mask.numel())
    assert abs(mask.mean() - (1 - dropout)) < 4 * error
    by_place = mask.mean(dim=0), mask.mean(dim=1), mask.mean(dim=2)
    for share in by_place:  # no row, column or head that stands out
        spread = math.sqrt(dropout * (1 - dropout) * share.numel() / mask.numel())
        assert float(share.std()) == pytest.approx(spread, rel=0.2)
    rows = mask.flatten(0, 1)
    correlation = torch.corrcoef(rows[:256]) - torch.eye(256)
    assert float(correlation.abs().max()) < 6 / math.sqrt(128)
    other = kept((8, 128, 128), place_of(0, 0, 128), short_seed(2**61 + 12346), dropout).float()
    assert abs(float(torch.corrcoef(torch.stack([mask.flatten(), other.flatten()]))[0, 1])) < 4 / math.sqrt(
        mask.numel()
    )


def test_a_part_has_the_mask_of_the_whole() -> None:
    seed = short_seed(7)
    whole = kept((6, SEQ, SEQ), place_of(0, 0, SEQ), seed, 0.3)
    assert torch.equal(kept((2, 10, 20), place_of(3, 5, SEQ), seed, 0.3), whole[3:5, 5:15, :20])


def test_places_beyond_32_bits_wrap() -> None:
    place = place_of(2**20, 3, 2**12)
    assert place.tolist() == [3 * 2**12, 2**12, 2**24]  # 2^20 heads of 2^24 weights are 0 modulo 2^32
    kept((1, 2, 3), place, short_seed(2**62 - 1), 0.1)


def test_both_passes_against_autograd() -> None:
    torch.manual_seed(0)
    scores = torch.randn(3, SEQ, SEQ, dtype=torch.float64).requires_grad_()
    above = torch.randn(3, SEQ, SEQ, dtype=torch.float64)
    place, seed = place_of(4, 0, SEQ), short_seed(99)
    weights = torch.softmax(0.5 * scores + hidden(), dim=-1) * kept((3, SEQ, SEQ), place, seed, 0.25) / 0.75
    (expected,) = torch.autograd.grad(weights, scores, above)
    forward = scores.detach().clone()
    attention_weights_(forward, hidden(), place, seed, 0.25, 0.5)
    torch.testing.assert_close(forward, weights.detach())
    backward, slopes = scores.detach().clone(), above.clone()
    attention_weights_backward_(backward, slopes, hidden(), place, seed, 0.25, 0.5)
    torch.testing.assert_close(backward, weights.detach())
    torch.testing.assert_close(slopes, expected)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_the_formula_with_its_mask(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a compiled step runs it, but for the compiler; several groups of heads, parts of unequal rows."""
    monkeypatch.setattr(attention_dropout, "fused", lambda: True)
    monkeypatch.setattr(attention_dropout, "BYTES", 3 * SEQ * SEQ * 8)
    monkeypatch.setattr(attention, "draw_seed", lambda: 2**50 + 17)
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 4, SEQ, 8, dtype=torch.float64).requires_grad_() for _ in range(3))
    seen = torch.ones(SEQ, SEQ, dtype=torch.bool).tril()
    if masked:
        seen &= ~torch.ones(SEQ, SEQ, dtype=torch.bool).tril(-5)
    found = attention.attention_with_dropout(query, key, value, 0.25, seen if masked else None)
    stays = kept((8, SEQ, SEQ), place_of(0, 0, SEQ), short_seed(2**50 + 17), 0.25).view(2, 4, SEQ, SEQ)
    scores = (query @ key.transpose(-1, -2) / 8**0.5).masked_fill(~seen, -math.inf)
    expected = (scores.softmax(dim=-1) * stays / 0.75) @ value
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(found)
    inputs = [query, key, value]
    for one, other in zip(
        torch.autograd.grad(found, inputs, upstream),
        torch.autograd.grad(expected, inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
