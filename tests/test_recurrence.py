"""The waist: a hand-made linear core with a closed form, streaming, interventions, refusals."""

import pytest
import torch
from torch import Tensor, nn

import loopscope
from loopscope.numerics import l2_norm, scale
from loopscope.recurrence import AbstractLoopedLM, LoopContext, check_input_ids, check_loops, unroll


class LinearCore(AbstractLoopedLM):
    """h -> a·h + b: contractive, with fixed point b / (1 - a)."""

    def __init__(self, a: float = 0.5, b: float = 3.0) -> None:
        super().__init__()
        self.loops = 4
        self.a, self.b = a, b
        self.embedding = nn.Embedding(10, 8)

    def embed(self, input_ids: Tensor) -> Tensor:
        return self.embedding(input_ids)

    def core(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
        return self.a * hidden + self.b

    def carry(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
        return hidden

    def readout(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
        return hidden

    def head(self, features: Tensor) -> Tensor:
        return features @ self.embedding.weight.T


IDS = torch.tensor([[1, 2, 3]])


def test_a_contractive_core_reaches_its_fixed_point() -> None:
    *_, last = unroll(LinearCore(), IDS, loops=60)
    assert torch.allclose(last.hidden, torch.full((1, 3, 8), 6.0))


@pytest.mark.parametrize("loops", [1, 3, 4, 9])
@pytest.mark.smoke
def test_every_depth_is_a_prefix_of_a_deeper_one(loops: int) -> None:
    model = LinearCore()
    states = list(unroll(model, IDS, loops))
    assert [state.loop for state in states] == list(range(1, loops + 1))
    assert [state.is_last for state in states] == [False] * (loops - 1) + [True]
    for short, long in zip(states, unroll(model, IDS, 12), strict=False):
        assert torch.equal(short.hidden, long.hidden)


@pytest.mark.smoke
def test_the_trained_depth_is_the_default_and_forward_is_its_last_exit() -> None:
    model = LinearCore()
    *_, last = loopscope.unroll(model, IDS)
    assert last.loop == 4
    assert torch.equal(model(IDS), last.logits())


@pytest.mark.smoke
def test_gradient_through_all_loops_has_its_closed_form() -> None:
    model = LinearCore()
    *_, last = unroll(model, IDS, 5)
    last.hidden.sum().backward()
    assert torch.allclose(model.embedding.weight.grad[1], torch.full((8,), 0.5**5))


def test_a_sent_state_replaces_what_is_carried_on() -> None:
    model = LinearCore()
    states = unroll(model, IDS, 3)
    first = next(states)
    second = states.send(torch.zeros_like(first.hidden))
    assert torch.equal(second.hidden, torch.full((1, 3, 8), 3.0))
    assert torch.equal(next(states).hidden, torch.full((1, 3, 8), 4.5))


def test_nothing_runs_before_the_first_state_is_asked_for_and_break_stops() -> None:
    model = LinearCore()
    calls = []
    model.core = lambda hidden, loop, context: calls.append(loop) or hidden
    for state in unroll(model, IDS, 100):
        if state.loop == 2:
            break
    assert calls == [1, 2]


@pytest.mark.parametrize("loops", [0, -1, 2.0, True, "3"])
def test_bad_depths_are_refused(loops: object) -> None:
    with pytest.raises(ValueError, match=r"loops is .*; it must be a whole number from 1 up"):
        check_loops(loops)


def test_refusals_come_on_the_call_not_on_the_first_state() -> None:
    with pytest.raises(ValueError, match="loops is 0"):
        unroll(LinearCore(), IDS, 0)
    with pytest.raises(ValueError, match="at least one token"):
        unroll(LinearCore(), torch.zeros(1, 0, dtype=torch.long))


def test_bad_input_ids_are_refused() -> None:
    with pytest.raises(ValueError, match="add a batch axis"):
        check_input_ids(torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="dtype torch.float32"):
        check_input_ids(torch.zeros(1, 2))


def test_scale_and_norm_are_related_by_the_root_of_dim() -> None:
    hidden = torch.randn(2, 3, 16, dtype=torch.bfloat16)
    assert scale(hidden).dtype == torch.float32
    assert torch.allclose(l2_norm(hidden), scale(hidden) * 4)
