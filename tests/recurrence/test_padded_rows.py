"""Texts of different lengths in one batch: each has what it has alone, wherever its padding is."""

import pytest
import torch
from torch import Tensor, nn

import loopscope
from loopscope.generation.padding import pad
from loopscope.recurrence import (
    AbstractLoopedLM,
    PaddedRows,
    check_attention_mask,
    next_hidden,
    unroll,
    unroll_from,
)
from tests.interop.fixtures import Plain, build
from tests.model.fixtures import live_model

TEXTS = [[3, 1, 4, 1, 5, 9], [2, 6, 5], [7, 7, 7, 8, 2], [9, 8, 1]]


def padded(side: str) -> tuple[Tensor, Tensor]:
    """Two texts of one length among four; `both`: a column of padding at either end."""
    ids, mask = pad(TEXTS, "left" if side == "left" else "right")
    if side == "both":
        ids, mask = (nn.functional.pad(one, (1, 1)) for one in (ids, mask))
    return ids.where(mask == 1, 11), mask  # padding is a token like others, not 0


class Positioned(Plain):
    """Learned positions that know nothing of a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Embedding(12, 16)
        self.block = self.layers[0]

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        for _ in range(self.config.loops):
            x = nn.functional.layer_norm(self.stack(x), x.shape[-1:])
        return self.lm_head(self.norm(x))


def wrapped(kind: type[nn.Module]) -> AbstractLoopedLM:
    return loopscope.wrap(build(kind), "layers")


MODELS = {
    "learned positions": lambda: live_model("plain"),
    "rotary": lambda: live_model("ouro"),
    "random start": lambda: live_model("huginn"),
    "window": lambda: live_model("window"),
    "replayed": lambda: wrapped(Plain),
    "followed": lambda: wrapped(Positioned),
}


@pytest.mark.parametrize("side", ["left", "right", "both"])
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_a_padded_row_has_what_it_has_alone(name: str, side: str) -> None:
    model = MODELS[name]()
    ids, mask = padded(side)
    states = list(unroll(model, ids, 4, attention_mask=mask))
    for row, text in enumerate(TEXTS):
        at = mask[row] == 1
        for state, alone in zip(states, unroll(model, torch.tensor([text]), 4), strict=True):
            assert torch.allclose(state.hidden[row, at], alone.hidden[0], atol=1e-4)
            assert torch.allclose(state.logits()[row, at], alone.logits()[0], atol=1e-4)
            gate, own = state.gate_logit(), alone.gate_logit()
            assert (gate is None) == (own is None)
            assert gate is None or own is None or torch.allclose(gate[row, at], own[0], atol=1e-4)
            assert not state.hidden[row, ~at].any()


def test_a_lone_length_is_the_row_bit_for_bit_with_its_gradient() -> None:
    model = live_model("huginn")
    ids, mask = padded("left")

    def gradients(states: list[loopscope.LoopState], at: Tensor) -> list[Tensor]:
        loss = sum(state.logits()[at].square().sum() for state in states)
        return list(torch.autograd.grad(loss, list(model.parameters()), allow_unused=True))

    first = torch.zeros_like(mask, dtype=torch.bool)
    first[0] = True
    together = gradients(list(unroll(model, ids, attention_mask=mask)), first)
    own = gradients(list(unroll(model, ids[:1])), first[:1])
    for one, other in zip(together, own, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one, other, atol=1e-4)


@torch.no_grad()
def test_interventions_go_on_from_padded_states() -> None:
    model = live_model("parcae")
    ids, mask = padded("right")
    at = mask[1] == 1
    states, alone = list(unroll(model, ids, attention_mask=mask)), list(unroll(model, ids[1:2, at]))
    twice = next_hidden(states[0], 2 * states[0].hidden)
    assert torch.allclose(twice[1, at], next_hidden(alone[0], 2 * alone[0].hidden)[0], atol=1e-4)
    *_, last = unroll_from(states[0], 2 * states[0].hidden)
    *_, own = unroll_from(alone[0], 2 * alone[0].hidden)
    assert torch.allclose(last.hidden[1, at], own.hidden[0], atol=1e-4)


def test_packed_rows_are_the_tokens_one_after_the_other() -> None:
    model = live_model("plain")
    ids, mask = padded("both")
    tokens = mask == 1
    packed = PaddedRows(model, tokens, packed=True)
    *_, last = unroll(packed, ids[tokens][None])
    *_, own = unroll(model, ids, attention_mask=mask)
    assert last.hidden.shape[:2] == (1, sum(map(len, TEXTS)))
    assert torch.equal(last.logits()[0], own.logits()[tokens])
    assert torch.equal(model(ids, attention_mask=mask), own.logits())


def test_a_mask_of_ones_changes_nothing() -> None:
    model, ids = live_model("plain"), torch.tensor(TEXTS[:1])
    for mask in (torch.ones_like(ids), torch.ones_like(ids, dtype=torch.bool), None):
        assert next(unroll(model, ids, attention_mask=mask)).model is model
    assert check_attention_mask(ids, torch.tensor([[0, 1, 1, 1, 1, 1]])) is not None


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(2, 3), r"shape \(2, 3\); it must be a tensor of the shape of input_ids, \(1, 4\)"),
        (torch.tensor([[0, 0, 0, 0]]), "row 0 of attention_mask has no token"),
        (torch.tensor([[1, 0, 1, 1]]), "row 0 of attention_mask has padding between tokens"),
        (torch.tensor([[1, 1, 2, 2]]), "from 1 to 2; it must be of bool or whole numbers"),
        (torch.tensor([[0.0, 0.0, -1e9, 0.0]]), "what is added to scores is no such mask"),
        ([[1, 1, 1, 1]], "attention_mask is a list"),
    ],
)
def test_masks_that_cannot_be_are_refused_on_the_call(mask: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unroll(live_model("plain"), torch.zeros(1, 4, dtype=torch.int64), attention_mask=mask)
