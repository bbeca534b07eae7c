"""The loss that takes gradients while logits are there, against the plain reference: value, gradients, memory."""

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives import linear_cross_entropy, token_loss
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.linear_cross_entropy import LinearCrossEntropy
from loopscope.objectives.objective import Objective, build_objective
from loopscope.objectives.placements import Dense, Terminal
from loopscope.objectives.token_loss import IGNORE_INDEX, plain_cross_entropy
from loopscope.recurrence import unroll


def running(
    exits: list[torch.Tensor], matrix: torch.Tensor, labels: torch.Tensor, shares: list[float]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    run = LinearCrossEntropy(matrix, labels)
    losses = [run.add(features, share) for features, share in zip(exits, shares, strict=True)]
    return run.finish(), losses


def plainly(
    exits: list[torch.Tensor], matrix: torch.Tensor, labels: torch.Tensor, shares: list[float]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    losses = [plain_cross_entropy(lambda rows: F.linear(rows, matrix), each, labels) for each in exits]
    counted = (labels != IGNORE_INDEX).sum()
    total = sum(share * loss.sum() / counted for share, loss in zip(shares, losses, strict=True))
    return torch.as_tensor(total), losses


def problem(
    batch: int, seq: int, vocab: int, exits: int, dtype: torch.dtype = torch.float32
) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    features = [(3 * torch.randn(batch, seq, 8, dtype=dtype)).requires_grad_() for _ in range(exits)]
    matrix = torch.randn(vocab, 8, dtype=dtype, requires_grad=True)
    labels = torch.randint(vocab, (batch, seq))
    if labels.numel() > 1:
        labels[0, 0] = IGNORE_INDEX
    return features, matrix, labels


@given(
    batch=st.integers(1, 3),
    seq=st.integers(1, 9),
    vocab=st.integers(2, 40),
    shares=st.lists(st.floats(0.1, 3), min_size=1, max_size=4),
    elements=st.integers(1, 400),
    seed=st.integers(0, 2**31),
    fused=st.booleans(),
)
@settings(max_examples=60)
def test_equal_in_value_and_every_gradient(
    batch: int, seq: int, vocab: int, shares: list[float], elements: int, seed: int, fused: bool
) -> None:
    """`fused`: as a step runs it whose chains are compiled, but for the compiler."""
    torch.manual_seed(seed)
    exits, matrix, labels = problem(batch, seq, vocab, len(shares))
    results = []
    before, token_loss.CHUNK_ELEMENTS = token_loss.CHUNK_ELEMENTS, elements
    asked, linear_cross_entropy.fused = linear_cross_entropy.fused, lambda: fused
    try:
        for function in (plainly, running):
            total, losses = function(exits, matrix, labels, shares)
            gradients = torch.autograd.grad(1.7 * total, [*exits, matrix])
            results.append([total.detach(), *[loss.detach() for loss in losses], *gradients])
    finally:
        token_loss.CHUNK_ELEMENTS, linear_cross_entropy.fused = before, asked
    for one, other in zip(*results, strict=True):
        # Gradients are sums over exits and tokens: what cancels leaves the rounding of what it was.
        torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-6 * max(1.0, float(other.abs().max())))


@pytest.mark.smoke
def test_second_derivatives_are_right() -> None:
    torch.manual_seed(0)
    exits, matrix, labels = problem(2, 3, 7, 2, torch.float64)

    def total(first: torch.Tensor, second: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
        return running([first, second], head, labels, [0.3, 0.7])[0]

    assert torch.autograd.gradcheck(total, (*exits, matrix))
    assert torch.autograd.gradgradcheck(total, (*exits, matrix))


def test_second_derivatives_of_a_tied_head() -> None:
    """The head's matrix is also in the history of its features: it must count once at each place."""
    torch.manual_seed(0)
    _, matrix, labels = problem(2, 3, 7, 1, torch.float64)

    def total(matrix: torch.Tensor) -> torch.Tensor:
        first = matrix[labels.clamp(min=0)].sin()
        return running([first, first * first], matrix, labels, [0.3, 0.7])[0]

    (plain,) = torch.autograd.grad(total(matrix), matrix)
    (recorded,) = torch.autograd.grad(total(matrix), matrix, create_graph=True)
    torch.testing.assert_close(plain, recorded)
    assert torch.autograd.gradgradcheck(total, (matrix,))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.smoke
def test_the_value_is_exact_under_bf16(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits are bf16 products, as autocast makes them; everything behind them is fp32."""
    monkeypatch.setattr(linear_cross_entropy, "fused", lambda: fused)
    monkeypatch.setattr(token_loss, "CHUNK_ELEMENTS", 100)
    torch.manual_seed(0)
    exits, matrix, labels = problem(2, 16, 30, 2)
    with torch.autocast("cpu", torch.bfloat16):
        plain, plain_losses = plainly(exits, matrix, labels, [0.5, 0.5])
        total, losses = running(exits, matrix, labels, [0.5, 0.5])
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, plain, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(losses[0], plain_losses[0].detach(), rtol=1e-6, atol=1e-5)
    for one, other in zip(
        torch.autograd.grad(total, [*exits, matrix]),
        torch.autograd.grad(plain, [*exits, matrix]),
        strict=True,
    ):
        assert float((one - other).norm() / other.norm()) < 0.01  # bf16 rounds to 0.4 %


def test_far_logits_give_the_right_loss_and_no_denormal_number() -> None:
    """At the published start logits are tens apart; denormal numbers made a step ten times slower."""
    torch.manual_seed(0)
    features = torch.randn(1, 50, 8).requires_grad_()
    matrix = (60 * torch.randn(40, 8)).requires_grad_()
    labels = torch.randint(40, (1, 50))
    run = LinearCrossEntropy(matrix, labels)
    losses = run.add(features, 1.0)
    expected = F.cross_entropy(F.linear(features, matrix)[0], labels[0], reduction="none")
    assert float(expected.detach().max()) > 200
    torch.testing.assert_close(losses[0], expected.detach(), rtol=1e-6, atol=1e-4)
    tiny = torch.finfo(torch.float32).tiny
    assert run.logit_grad.abs()[run.logit_grad != 0].min() > 1e-27 > tiny
    softmax = F.linear(features, matrix).softmax(-1)
    assert ((softmax > 0) & (softmax < tiny)).any()  # the plain way does meet them


def test_far_logits_in_one_loop() -> None:
    """The same where chains are compiled: labels further below the largest than anything is raised to."""
    torch.manual_seed(0)
    logits, targets = 60 * torch.randn(50, 40), torch.randint(40, (50, 1))
    losses, slopes = linear_cross_entropy._fused_logit_gradients(logits, targets, torch.empty_like(logits))
    expected = F.cross_entropy(logits, targets[:, 0], reduction="none")
    assert float(expected.max()) > 100
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(slopes, logits.softmax(-1) - F.one_hot(targets[:, 0], 40))
    assert slopes.abs()[slopes != 0].min() > torch.finfo(torch.float32).tiny


def losses_of(objective: Objective, model: LoopedTransformer, ids: torch.Tensor) -> list[torch.Tensor]:
    labels = ids.roll(-1, dims=1).clone()
    labels[0, :3] = IGNORE_INDEX
    loss = objective(unroll(model, ids), labels)
    gradients = torch.autograd.grad(loss.total, list(model.parameters()))
    return [loss.total.detach(), loss.cross_entropy, *gradients]


@pytest.mark.parametrize(
    "placement", [Terminal(), Dense(), Dense((1.0, 0.0, 3.0)), Dense((1.0, 2.0, 3.0), (3.0, 2.0, 1.0))]
)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.smoke
def test_an_objective_equals_itself_with_the_plain_loss(placement: Dense | Terminal, tied: bool) -> None:
    torch.manual_seed(0)
    model = LoopedTransformer(
        ModelConfig(dim=16, heads=2, layers=1, loops=3, vocabulary=40, sequence=12, tied=tied)
    )
    placement.advance(0.25)
    ids = torch.randint(40, (2, 12))
    fast = losses_of(Objective(placement), model, ids)
    slow = losses_of(Objective(placement, token_loss=plain_cross_entropy), model, ids)
    for one, other in zip(fast, slow, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, equal_nan=True)


def test_a_head_that_was_replaced_is_the_one_that_counts() -> None:
    class Capped(LoopedTransformer):
        def head(self, features: torch.Tensor) -> torch.Tensor:
            return 3 * torch.tanh(super().head(features) / 3)

    torch.manual_seed(0)
    model = Capped(ModelConfig(dim=16, heads=2, layers=1, loops=2, vocabulary=40, sequence=12))
    assert model.head_matrix() is None
    ids = torch.randint(40, (2, 12))
    states = list(unroll(model, ids))
    expected = sum(F.cross_entropy(state.logits().flatten(0, 1), ids.flatten()) for state in states) / 2
    loss = build_objective(ObjectiveConfig())(unroll(model, ids), ids)
    torch.testing.assert_close(loss.total, expected)


def test_nothing_as_wide_as_the_vocabulary_is_kept_but_one_gradient() -> None:
    torch.manual_seed(0)
    exits, matrix, labels = problem(4, 16, 100, 4)
    saved: list[torch.Tensor] = []
    run = LinearCrossEntropy(matrix, labels)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        for features in exits:
            run.add(features, 0.25)
        total = run.finish()
    assert [t.shape for t in saved if 100 in t.shape] == [matrix.shape] * 4  # the matrix itself, four times
    gathered, buffers = weakref.ref(run.gradient), weakref.ref(run.logit_grad)
    gc.disable()  # nothing may wait for the collector: it would be a gradient of the head, every step
    try:
        del run
        assert buffers() is None
        assert gathered() is not None
        del total
        assert gathered() is None
    finally:
        gc.enable()
