"""Dropout from a seed: its share, its gradient, and what draws it."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from loopscope.ops import dropout as dropouts
from loopscope.ops.dropout import dropout_add_at
from loopscope.ops.dropout_masks import DropoutMasks, draw_seed, dropout_gain, keep_


@pytest.mark.parametrize("dropout", [1e-3, 0.1, 0.5, 0.9])
def test_a_mask_drops_the_share_it_should_and_follows_the_seed(dropout: float) -> None:
    """At 0.5 and beyond the threshold is on the other side of 16 bits' zero."""
    ones = torch.ones(8, 4, 64, 64)
    first, again, other = (keep_(ones.clone(), DropoutMasks(dropout, seed).draw(ones)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    deviation = (dropout * (1 - dropout) / ones.numel()) ** 0.5
    assert abs(float((first == 0).double().mean()) - dropout) < 4 * deviation + 0.5 / 65536
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert dropout_gain(dropout) == pytest.approx(1 / (1 - dropout), rel=1e-4)
    rows = torch.cat([first.view(4, -1), other.view(4, -1)])
    assert float(torch.corrcoef(rows).fill_diagonal_(0).abs().max()) < 0.15


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_masks_do_not_depend_on_the_width(dtype: torch.dtype) -> None:
    like = torch.full((5, 7), float("nan"), dtype=dtype)
    kept = keep_(like, DropoutMasks(0.3, 1).draw(like)).isnan()
    assert torch.equal(kept, keep_(torch.ones(5, 7), DropoutMasks(0.3, 1).draw(torch.ones(5, 7))) == 1)
    assert 0 < kept.sum() < 35  # a dropped NaN is 0


def test_torchs_generator_governs_it_and_a_checkpoint_draws_the_same() -> None:
    torch.manual_seed(0)
    seeds = [draw_seed() for _ in range(3)]
    torch.manual_seed(0)
    assert [draw_seed() for _ in range(3)] == seeds
    assert len(set(seeds)) == 3
    x = torch.randn(4, 50, requires_grad=True)

    def layer(x: torch.Tensor) -> torch.Tensor:
        return dropout_add_at(torch.zeros_like(x), x, 0.5).tanh()

    grads = []
    for again in (False, True):
        torch.manual_seed(1)
        out = checkpoint(layer, x, use_reentrant=False) if again else layer(x)
        grads.append(torch.autograd.grad(out.sum(), x)[0])
    assert torch.equal(*grads)


def test_no_mask_is_kept() -> None:
    saved: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        dropout_add_at(torch.zeros(8), torch.randn(8, requires_grad=True), 0.1)
    assert saved == []


@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.25])
def test_joined_is_the_sum_with_what_dropout_left(
    share: float, hashed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the second derivative, with either kind of mask; as compiled steps run it, but for the compiler."""
    monkeypatch.setattr(dropouts, "fused", lambda: hashed)
    hidden, added = (torch.randn(2, 50, 8, dtype=torch.float64).requires_grad_() for _ in range(2))

    def seeded(hidden: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(4)
        return dropout_add_at(hidden, added, share)

    mask = seeded(torch.zeros_like(hidden), torch.ones_like(added))
    deviation = (share * (1 - share) / mask.numel()) ** 0.5
    assert abs(float((mask == 0).double().mean()) - share) <= 4 * deviation
    assert set(mask.unique().tolist()) <= {0.0, dropout_gain(share)}
    torch.testing.assert_close(seeded(hidden, added), hidden + added * mask)
    few = hidden[:1, :2], added[:1, :2]
    assert torch.autograd.gradcheck(seeded, few)
    assert torch.autograd.gradgradcheck(seeded, few)


def test_what_is_added_may_be_narrower_than_the_residual() -> None:
    """Its sum and dropout_gain are the residual's width, its gradient is its own."""
    hidden, added = torch.randn(2, 5, 8).requires_grad_(), torch.randn(2, 5, 8).bfloat16().requires_grad_()
    torch.manual_seed(5)
    found = dropout_add_at(hidden, added, 0.25)
    torch.manual_seed(5)
    mask = dropout_add_at(torch.zeros(2, 5, 8), torch.ones(2, 5, 8), 0.25)
    assert found.dtype == torch.float32
    assert torch.equal(found, hidden + added.float() * mask)
    upstream = torch.randn(2, 5, 8)
    one, other = torch.autograd.grad(found, [hidden, added], upstream)
    assert torch.equal(one, upstream)
    torch.testing.assert_close(other, (upstream * mask).bfloat16())
