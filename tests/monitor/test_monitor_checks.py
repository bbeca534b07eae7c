"""What a check of the scale monitor looks at, and what it refuses or survives."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from loopscope.model.looped import LoopedTransformer
from loopscope.monitor.batch_slice import check_arguments, check_batch, slice_of
from loopscope.monitor.monitor import ScaleMonitor
from loopscope.objectives.objective import Objective
from loopscope.objectives.placements import Dense
from loopscope.recurrence import unroll
from tests.monitor.fixtures import LOOPS, SEQUENCE, VOCABULARY, Sized, batch, make


def test_a_slice_holds_labels_that_count() -> None:
    input_ids = torch.arange(40).view(4, 10)
    labels = torch.full_like(input_ids, -100)
    labels[2, 7:], labels[3, 6:9] = 1, 2
    ids, targets = slice_of(input_ids, labels, 6)
    assert ids.tolist() == [[26, 27, 28], [36, 37, 38]]
    assert (targets != -100).sum() == 5
    ids, _ = slice_of(input_ids, input_ids, 6)
    assert ids.tolist() == [[0, 1, 2], [10, 11, 12]]
    assert slice_of(input_ids[:1], labels[:1], 100)[0].shape == (1, 10)


class Viewing(Sized):
    """As nanoGPT's forward does: it flattens tokens by `view`, which refuses a slice that is not contiguous."""

    def embed(self, input_ids: Tensor) -> Tensor:
        return super().embed(input_ids.view(-1)).view(*input_ids.shape, -1)


def test_a_slice_is_contiguous_however_the_batch_lies() -> None:
    tokens = torch.randint(VOCABULARY, (SEQUENCE + 1, 8), generator=torch.Generator().manual_seed(0)).T
    input_ids, labels = tokens[:, :-1], tokens[:, 1:]
    assert not input_ids.is_contiguous()
    for width in (4, 6, 100):
        ids, targets = slice_of(input_ids, labels, width)
        assert ids.is_contiguous()
        assert targets.is_contiguous()
        assert torch.equal(ids, input_ids[:2, : width // 2])
        assert torch.equal(targets, labels[:2, : width // 2])
    assert ScaleMonitor(Viewing(), budget=None, tokens=8).step(1, input_ids, labels) is not None


def test_labels_that_are_not_shifted_are_told_of_once() -> None:
    said: list[str] = []
    tokens, labels = batch(1)
    monitor = ScaleMonitor(make(), budget=None, every=1, tell=said.append)
    monitor.step(1, tokens, labels)
    same = torch.full_like(tokens, 3)  # the token that follows is the token
    monitor.step(2, same, same)
    assert said == []
    prompt = tokens.masked_fill(torch.arange(SEQUENCE) < 4, -100)
    for step in (3, 4):
        check = monitor.step(step, tokens, prompt)
        assert check is not None
        assert check.step == step
    (note,) = [text for text in said if "labels are the input tokens" in text]
    assert "Call monitor.step(step, input_ids[:, :-1], labels[:, 1:])" in note
    monitor = ScaleMonitor(make(), tell=said.append)
    monitor.step(1, tokens, torch.full_like(tokens, -100))
    assert said.count(note) == 1


def test_without_labels_that_count_only_scales_are_measured() -> None:
    monitor = ScaleMonitor(make(), budget=None)
    check = monitor.step(1, batch(1)[0], torch.full((8, SEQUENCE), -100))
    assert check is not None
    assert check.verdict is None
    assert len(check.rms) == LOOPS


def test_half_precision_weights_are_measured_in_fp32_and_stay() -> None:
    """Also their gradients and the hooks on them, through which DDP exchanges: they hang on the parameter itself."""
    model = make().bfloat16()
    wide = copy.deepcopy(model).float()
    kept, accumulated = list(model.parameters()), list[str]()
    accumulators = [parameter.expand_as(parameter).grad_fn.next_functions[0][0] for parameter in kept]
    for accumulator in accumulators:
        accumulator.register_hook(lambda *_: accumulated.append("seen"))
    check, same = (ScaleMonitor(m, budget=None).step(1, *batch(1)) for m in (model, wide))
    assert check is not None
    assert same is not None
    assert (check.rms, check.carry, check.exposure) == (same.rms, same.carry, same.exposure)
    assert all(after is before for after, before in zip(model.parameters(), kept, strict=True))
    assert {parameter.dtype for parameter in kept} == {torch.bfloat16}
    Objective(Dense())(unroll(model, batch(1)[0]), batch(1)[1]).total.backward()
    assert len(accumulated) == len(kept)


def test_a_state_that_is_not_finite_gets_no_verdict() -> None:
    """NaN is below no threshold, so a careless comparison would call it blind."""
    model, said = make(), list[str]()
    monitor = ScaleMonitor(model, every=1, budget=None, tell=said.append)
    with torch.no_grad():
        model.layers[0].feed_forward.down.weight.fill_(float("inf"))
    for step in range(5):
        check = monitor.step(step, *batch(1))
        assert check is not None
        assert check.verdict is None
    assert said == []


def test_a_loss_of_exactly_0_gets_no_verdict() -> None:
    """A raw readout shows the scale; a model that is certain to the last bit has no gradient to show that with."""
    model, said = make(readout={"kind": "raw"}), list[str]()
    with torch.no_grad():
        model.token_embedding.weight.mul_(100)
        ids, _ = batch(1)
        *_, last = unroll(model, ids)
        certain = last.logits().argmax(dim=-1)
    monitor = ScaleMonitor(model, "terminal", every=1, budget=None, tell=said.append)
    check = monitor.step(1, ids, certain)
    assert check is not None
    assert check.verdict is None
    assert not any("holds" in line for line in said)


def test_a_failing_check_ends_the_monitoring_and_not_the_training() -> None:
    class Failing(LoopedTransformer):
        fails = False

        def core(self, hidden: Tensor, loop: int, context: Any) -> Tensor:
            if self.fails:
                raise torch.OutOfMemoryError("out of memory, say")
            return super().core(hidden, loop, context)

    model, said = Failing(make().config), list[str]()
    monitor = ScaleMonitor(model, every=1, budget=None, tell=said.append)
    monitor.step(1, *batch(1))
    model.fails = True
    assert monitor.step(2, *batch(2)) is None
    assert said == ["the scale monitor stops at step 2, the training goes on: out of memory, say"]
    assert model.training
    model.fails = False
    assert monitor.step(3, *batch(3)) is None
    model.fails = True
    with pytest.raises(torch.OutOfMemoryError):  # the first check says what is wrong
        ScaleMonitor(model).step(1, *batch(1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check_arguments(nn.Linear(2, 2), None, 20, 128), r"a Linear, .*\.adapt.*\.wrap"),
        (lambda: check_arguments(make(), 3, 20, 128), "objective is .*; pass an Objective"),
        (lambda: check_arguments(make(), None, 2.5, 128), "every is 2.5"),
        (lambda: ScaleMonitor(make(), every=0), "every is 0; .*from 1 up"),
        (lambda: ScaleMonitor(make(), tokens=1), "tokens is 1"),
        (lambda: ScaleMonitor(make(), budget=0.0), "budget is 0.0; .*above 0 and up to 1"),
        (lambda: ScaleMonitor(make(), budget=1.5), "budget is 1.5"),
        (lambda: step_on(batch(1)[0] + 10), "input_ids go from 10 to 26; this model has ids 0 to 16"),
        (lambda: step_on(batch(1)[0] - 1), "input_ids go from -1 to"),
        (lambda: step_on(batch(1)[0], batch(1)[1] + 1), "labels go from 1 to 17; this model has ids 0 to 16"),
        (lambda: check_batch(batch(1)[0], batch(1)[1][:, 1:]), "give one label per token"),
        (lambda: check_batch(batch(1)[0][0], batch(1)[1][0]), r"must be \[batch, seq\]"),
        (lambda: check_batch(batch(1)[0].float(), batch(1)[1]), "must be int64 or int32"),
    ],
)
def test_bad_input_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def step_on(input_ids: Tensor, labels: Tensor | None = None) -> None:
    ScaleMonitor(make()).step(1, input_ids, batch(1)[1] if labels is None else labels)
