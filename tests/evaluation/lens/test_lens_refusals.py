"""What a lens refuses, in a sentence, before anything runs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import loopscope
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from tests.evaluation.lens.fixtures import IDS, lens_case
from tests.fixtures import refusal
from tests.model.fixtures import TINY

STATE = torch.zeros(2, 10, 32)

PLACES: list[tuple[Callable[[Any], Any], str]] = [
    (lambda seen: seen[0], "loop is 0; this lens sees loops 1 to 3"),
    (lambda seen: seen[4, 0], "loop is 4; this lens sees loops 1 to 3"),
    (lambda seen: seen[True], "loop is True"),
    (lambda seen: seen[1, 2], "layer is 2; a loop of this model has layers 0 to 1: layers.0, layers.1"),
    (lambda seen: seen[1, -1], "layer is -1"),
    (lambda seen: seen[1, 0, 0], "give a loop, or a loop and a layer"),
    (lambda seen: seen.states("between"), "at is 'between'; a layer has before, attention, middle"),
    (lambda seen: seen.states(loops=[9]), "loop is 9"),
    (lambda seen: seen.states(loops=9), "loop is 9"),
    (lambda seen: seen.states(layers=7), "layer is 7"),
    (lambda seen: list(seen.stream(layers=7)), "layer is 7"),
    (lambda seen: seen.states(layers=[9]), "layer is 9"),
    (lambda seen: seen.patch(9, 0, STATE), "loop is 9"),
    (lambda seen: seen.patch(1, 9, STATE), "layer is 9"),
    (lambda seen: seen.patch(1, 0, STATE, at="around"), "at is 'around'"),
    (
        lambda seen: seen.patch(1, None, STATE, at="before"),
        "layer is None, the loop's H_k, which has no 'before'",
    ),
    (
        lambda seen: seen.patch(1, 0, STATE[:1]),
        "with_ has shape (1, 10, 32); the state 'after' of layer 0 at loop 1",
    ),
    (lambda seen: seen.patch(1, 0, STATE[0, 0]), "with_ has shape (32,)"),
    (
        lambda seen: seen.patch(1, 0, STATE.double()),
        "with_ is torch.float64; the state 'after' of layer 0 at",
    ),
    (lambda seen: seen.patch(1, 0, STATE.to("meta")), "with_ is on meta"),
    (lambda seen: seen.patch(1, 0, 0.0), "with_ is a float; give a tensor of shape (2, 10, 32)"),
    (lambda seen: seen.patch(1, None, STATE[..., :3]), "the state at loop 1 has shape (2, 10, 32)"),
    (lambda seen: seen.patch(1, 0, lambda state: state[0]).last(), "with_ has shape (10, 32)"),
]


@pytest.mark.parametrize(("ask", "message"), PLACES, ids=[message[:40] for _, message in PLACES])
def test_a_place_or_a_state_that_does_not_fit(ask: Callable[[Any], Any], message: str) -> None:
    seen = loopscope.lens(lens_case("own")[2], IDS)
    said = refusal(lambda: ask(seen))
    assert said is not None
    assert message in said


INPUTS: list[tuple[Any, Any, Any, str]] = [
    (nn.Linear(2, 2), IDS, None, "model is a Linear, not a looped model"),
    (None, [[1, 2]], None, "input_ids is a list"),
    (None, IDS[0], None, "input_ids has shape (10,)"),
    (None, IDS[:, :0], None, "input_ids has shape (2, 0)"),
    (None, IDS.float(), None, "input_ids has dtype torch.float32"),
    (None, IDS + 40, None, "input_ids go from 40 to 79; this model has ids 0 to 39"),
    (None, IDS - 40, None, "input_ids go from -40 to -1; this model"),
    (None, IDS, 0, "loops is 0; it must be a whole number from 1 up"),
]


@pytest.mark.parametrize(("model", "ids", "loops", "message"), INPUTS, ids=[case[-1][:30] for case in INPUTS])
def test_what_a_lens_cannot_look_into(model: Any, ids: Any, loops: Any, message: str) -> None:
    said = refusal(lambda: loopscope.lens(model or lens_case("own")[2], ids, loops))
    assert said is not None
    assert message in said


def test_more_tokens_than_positions() -> None:
    model = LoopedTransformer(ModelConfig(**{**TINY, "positions": "learned", "sequence": 8}))
    said = refusal(lambda: loopscope.lens(model, IDS))
    assert said == "input_ids has 10 tokens, and the model has 8 positions: shorten it"


def test_a_model_whose_layers_are_not_known_has_its_loops() -> None:
    """A core of functions has none: H_k, logits and norms are there, and may be patched."""

    class Bare(loopscope.AbstractLoopedLM):
        loops = 3

        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(40, 16)

        def embed(self, input_ids: Any) -> Any:
            return self.table(input_ids)

        def core(self, hidden: Any, loop: int, context: Any) -> Any:
            return hidden + hidden.tanh()

        def carry(self, hidden: Any, loop: int, context: Any) -> Any:
            return hidden

        def readout(self, hidden: Any, loop: int, context: Any) -> Any:
            return hidden

        def head(self, features: Any) -> Any:
            return features @ self.table.weight.T

    seen = loopscope.lens(Bare(), IDS)
    assert seen.layers == ()
    assert [len(view.layers) for view in seen] == [0, 0, 0]
    assert torch.equal(seen.patch(2, None, torch.zeros_like)[3].hidden, torch.zeros(2, 10, 16))
    said = refusal(lambda: seen[1, 0])
    assert said == "layer is 0, but the layers of this model's loop are not known: only H_k is"
