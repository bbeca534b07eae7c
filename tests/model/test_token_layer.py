"""A layer in few calls, against the layer itself: who is run so, and that it makes no difference."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from loopscope.generation.decoder import make_steps
from loopscope.generation.draft import Draft
from loopscope.generation.drafted_steps import DraftedSteps
from loopscope.generation.settings import Settings
from loopscope.generation.stopping import Stopping
from loopscope.model.token_layer import TokenLayer
from loopscope.ops.dispatch import without_op
from tests.generation.fixtures import VOCABULARY, lively
from tests.model.fixtures import VARIANTS

CALLED = {"parcae", "loopformer", "huginn", "window", "part rotary", "wide heads", "adapters"}
"""Variants whose layers all have parts that `TokenLayer` does not know."""


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The loops of all calls that `TokenLayer` does meanwhile."""
    calls: list[int] = []
    run = TokenLayer.__call__

    def call(self: TokenLayer, hidden: Tensor, loop: int, cache: Any) -> Tensor:
        calls.append(loop)
        return run(self, hidden, loop, cache)

    with monkeypatch.context() as patch:
        patch.setattr(TokenLayer, "__call__", call)
        yield calls


def logits(model: nn.Module, pads: list[int], steps: int = 3) -> Tensor:
    """Logits of some steps over a cache, [steps rows vocab]."""
    ids = torch.randint(VOCABULARY, (len(pads), 5 + steps), generator=torch.Generator().manual_seed(0))
    made = make_steps(model, Settings(Stopping(steps), loops=2), torch.tensor(pads), 5 + steps)  # type: ignore[arg-type]
    with torch.no_grad():
        made.prefill(ids[:, :5])
        return torch.stack([made.step(ids[:, 5 + step]).logits for step in range(steps)])


@pytest.mark.parametrize("name", VARIANTS)
def test_the_same_numbers_in_every_variant(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lively(name)
    for pads in ([0, 0], [2, 0]):
        with counted(monkeypatch) as calls:
            short = logits(model, pads)
        assert bool(calls) == (name not in CALLED)
        with without_op("one_token"):
            whole = logits(model, pads)
        torch.testing.assert_close(short, whole, rtol=0, atol=1e-11 * float(whole.abs().max()))


def test_bf16_differs_by_its_rounding_alone() -> None:
    model = lively("ouro").to(torch.bfloat16)
    short = logits(model, [0, 0])
    with without_op("one_token"):
        whole = logits(model, [0, 0])
    assert short.dtype == torch.bfloat16
    torch.testing.assert_close(short, whole, rtol=0, atol=0.05 * float(whole.abs().max()))


def test_whoever_listens_hears_of_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    model, heard = lively(), []
    model.layers[0].feed_forward.register_forward_hook(lambda *_: heard.append(1))  # type: ignore[union-attr]
    with counted(monkeypatch) as calls:
        logits(model, [0], steps=3)
    assert len(heard) == 2 + 2 * 3  # the prompt, then every step, each through two loops
    assert len(calls) == 2 + 2 * 3  # the other layer


@pytest.mark.parametrize("pads", [[0, 0], [2, 0]], ids=["one length", "padded"])
@pytest.mark.parametrize("name", ["plain", "ouro", "grouped queries", "window of a few"])
def test_several_tokens_at_once_have_the_same_numbers(
    name: str, pads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"attention": {"window": 3}, "positions": "rotary"} if name == "window of a few" else {}
    model = lively("plain" if changes else name, **changes)
    drafted = DraftedSteps(model, 3, Draft(1, 4), torch.tensor(pads), 24)
    ids = torch.randint(VOCABULARY, (2, 24), generator=torch.Generator().manual_seed(0))

    def verified() -> Tensor:
        drafted.begin(torch.tensor([4, 4]))
        for place in range(5):
            drafted.take(ids[:, 17 + place])
        return drafted.verify()

    with torch.no_grad():
        drafted.prefill(ids[:, :17])  # more than few
        with counted(monkeypatch) as calls:
            short = verified()
        with without_op("one_token"):
            whole = verified()
    assert calls == [1] * 2 * (5 + 2), "loop by loop, and the deeper ones once for all five"
    torch.testing.assert_close(short, whole, rtol=0, atol=1e-11 * float(whole.abs().max()))


def test_whoever_comes_to_listen_between_steps_is_heard_from_then_on() -> None:
    model, heard = lively(), []
    made = make_steps(model, Settings(Stopping(3), loops=2), torch.zeros(1, dtype=torch.int64), 8)
    with torch.no_grad():
        made.prefill(torch.arange(5)[None])
        made.step(torch.tensor([5]))
        model.layers[1].register_forward_pre_hook(lambda *_: heard.append(1))
        made.step(torch.tensor([6]))
    assert len(heard) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_change_between_steps_are_followed(dtype: torch.dtype) -> None:
    model = lively().to(dtype)
    made = make_steps(model, Settings(Stopping(3), loops=2), torch.zeros(1, dtype=torch.int64), 8)
    other = make_steps(model, Settings(Stopping(3), loops=2), torch.zeros(1, dtype=torch.int64), 8)
    with torch.no_grad():
        for steps in (made, other):
            steps.prefill(torch.arange(5)[None])
        before = made.step(torch.tensor([5])).logits
        with without_op("one_token"):
            other.step(torch.tensor([5]))
        for layer in model.layers:
            layer.attention_norm.weight *= -1  # type: ignore[operator, union-attr]
        found = made.step(torch.tensor([6])).logits
        with without_op("one_token"):
            expected = other.step(torch.tensor([6])).logits
    assert not torch.equal(before, found)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05 * float(expected.abs().max()))


def test_a_gradient_goes_through_the_layer_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lively()
    made = make_steps(model, Settings(Stopping(3), loops=1), torch.zeros(1, dtype=torch.int64), 8)
    with counted(monkeypatch) as calls:
        made.step(torch.tensor([5])).logits.sum().backward()
    assert not calls
    assert model.layers[0].attention.out.weight.grad is not None  # type: ignore[union-attr]
