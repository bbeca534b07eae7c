"""Padded batches: every row gets what it gets alone, wherever its padding is."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loopscope.generation.decoder import generate_tokens, make_steps
from loopscope.generation.padding import pad, to_the_right
from loopscope.generation.settings import Settings
from loopscope.generation.stopping import Stopping
from tests.generation.fixtures import Erratic, lively, ragged, run

ROWS = st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=6), min_size=1, max_size=4)


@given(ROWS, st.sampled_from(["left", "right"]))
def test_rows_are_found_again_whatever_the_side(rows: list[list[int]], side: str) -> None:
    ids, mask = pad(rows, side)  # type: ignore[arg-type]
    moved, pads = to_the_right(ids, mask)
    assert [moved[place, gap:].tolist() for place, gap in enumerate(pads.tolist())] == rows
    assert moved.shape[1] == max(map(len, rows))


def test_columns_that_are_padding_in_every_row_are_dropped() -> None:
    mask = torch.tensor([[0, 0, 1, 1, 0], [0, 1, 1, 0, 0]])
    moved, pads = to_the_right(torch.tensor([[9, 9, 1, 2, 9], [9, 3, 4, 9, 9]]), mask)
    assert moved.tolist() == [[1, 2], [3, 4]]
    assert pads.tolist() == [0, 0]


@pytest.mark.parametrize("name", ["huginn", "window"])
@pytest.mark.parametrize("rule", [None, Erratic()])
def test_a_padded_row_gets_what_it_gets_alone(name: str, rule: Erratic | None) -> None:
    model = lively(name)
    ids, mask = ragged()
    together = run(model, 6, rule=rule)
    for row in range(3):
        alone = run(model, 6, rule=rule, prompts=(ids[row : row + 1, mask[row] == 1], None))
        assert together.tokens[row] == alone.tokens[0]
        assert together.loops[row] == alone.loops[0]


@pytest.mark.parametrize("name", ["plain", "huginn", "window"])
def test_logits_of_padded_rows_are_those_of_the_rows_alone(name: str) -> None:
    model = lively(name)
    ids, pads = to_the_right(*ragged())
    settings = Settings(Stopping(4))
    with torch.no_grad():
        steps = make_steps(model, settings, pads, 15)
        steps.prefill(ids[:, :-1])
        first, second = steps.step(ids[:, -1]).logits, steps.step(torch.tensor([3, 4, 5])).logits
        for row, gap in enumerate(pads.tolist()):
            own = make_steps(model, settings, torch.zeros(1, dtype=torch.int64), 15)
            own.prefill(ids[row : row + 1, gap:-1])
            for together, token in ((first, ids[row, -1:]), (second, torch.tensor([3 + row]))):
                assert torch.allclose(own.step(token).logits[0], together[row], rtol=1e-9, atol=1e-9)


def test_rows_that_end_leave_the_others_alone() -> None:
    model = lively("prelude and coda")
    for rule in (None, Erratic()):
        whole = run(model, 9, rule=rule)
        end = whole.tokens[0][3]  # row 0 ends after at most four tokens
        settings = Settings(Stopping(9, eos=(end,)), rule=rule)
        ended = generate_tokens(model, ragged()[0], settings, ragged()[1])
        for short, long, why in zip(ended.tokens, whole.tokens, ended.ended, strict=True):
            cut = long.index(end) + 1 if end in long else 9
            assert short == long[:cut]
            assert why == ("eos" if end in long else "length")
        assert len(ended.tokens[0]) <= 4


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(1, 4), r"shape \(1, 4\); it must be a tensor of the shape of input_ids, \(2, 4\)"),
        (torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]]), "row 1 of attention_mask has no token"),
        (torch.tensor([[1, 0, 1, 1], [1, 1, 1, 1]]), "row 0 of attention_mask has padding between tokens"),
        ([[1]], "attention_mask is a list"),
    ],
)
def test_masks_that_cannot_be_are_refused(mask: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_the_right(torch.zeros(2, 4, dtype=torch.int64), mask)


def test_empty_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        pad([[1], []])
    with pytest.raises(ValueError, match="no prompts"):
        pad([])
