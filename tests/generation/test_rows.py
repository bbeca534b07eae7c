"""Requests in one batch that differ: each row gets what it gets alone; and prompts that come in pieces."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import loopscope
from loopscope.generation.decoder import Generated, generate_tokens, make_steps
from loopscope.generation.exits import Decision, RowRules
from loopscope.generation.missing import STRATEGIES
from loopscope.generation.settings import Settings
from loopscope.generation.stopping import Stopping
from loopscope.recurrence import LoopState
from tests.generation.fixtures import VOCABULARY, Erratic, lively, ragged, run

NUMBERS, LOOPS = [9, 3, 6, 12], [4, 2, 4, 4]
BATCH = torch.randint(VOCABULARY, (4, 7), generator=torch.Generator().manual_seed(2))
MASK = torch.ones_like(BATCH)
MASK[1, :3], MASK[3, 5:] = 0, 0


class Drift(Erratic):
    """A rule that looks at the loop before."""

    def decide(self, state: LoopState, before: Mapping[str, Tensor]) -> Decision:
        own = super().decide(state, {"loops": before["loops"]} if before else {})
        moved = state.hidden[:, -1] - before.get("hidden", torch.zeros(()))
        return Decision(self.score(moved) > self.bar, {**own.kept, "hidden": state.hidden[:, -1]}, own.logits)


def rules() -> list[Any]:
    shared = Erratic()
    return [shared, None, Drift(True, 0.5), shared]


def alone(model: Any, row: int, rule: Any, **more: Any) -> Generated:
    ids = BATCH[row][MASK[row] == 1][None]
    return generate_tokens(model, ids, Settings(Stopping(NUMBERS[row]), loops=LOOPS[row], rule=rule, **more))


# A row without a rule is told, alone, that what is missing has no effect.
@pytest.mark.filterwarnings("ignore:missing .* has no effect")
@pytest.mark.parametrize("missing", [*STRATEGIES, "no cache"])
@pytest.mark.parametrize("name", ["plain", "prelude and coda", "loopformer"])
def test_rows_get_what_they_get_alone(name: str, missing: str) -> None:
    model, own = lively(name), rules()
    more: dict[str, Any] = {"cache": False} if missing == "no cache" else {"missing": missing}
    settings = Settings(Stopping(NUMBERS), loops=LOOPS, rule=own, **more)
    made = generate_tokens(model, BATCH, settings, MASK)
    for row, rule in enumerate(own):
        expected = alone(model, row, rule, **more)
        assert made.tokens[row] == expected.tokens[0]
        assert made.loops[row] == expected.loops[0]
    assert [len(row) for row in made.tokens] == NUMBERS
    assert len({count for row in made.loops for count in row}) >= 3, "exits at several loops"


def test_rows_that_share_a_depth_share_every_call() -> None:
    model, batches = lively(), []
    model.layers[0].register_forward_pre_hook(lambda _, given: batches.append(given[0].shape[0]))
    generate_tokens(model, BATCH, Settings(Stopping(2), loops=[3, 1, 3, 3]))
    assert (
        sorted(batches[1:]) == [1] * 3 + [3] * 9
    )  # prompt and two tokens, of one row once and of three rows thrice


def test_rules_of_a_batch_keep_what_they_keep_apart() -> None:
    """Two rules that keep tensors of other shapes under one name."""

    class Keeps:
        def __init__(self, width: int) -> None:
            self.width = width

        def decide(self, state: LoopState, before: Mapping[str, Tensor]) -> Decision:
            seen = before.get("seen", torch.zeros(len(state.hidden), self.width))
            assert seen.shape == (len(state.hidden), self.width)
            return Decision(torch.zeros(len(seen), dtype=torch.bool), {"seen": seen + 1})

    both = RowRules([Keeps(2), Keeps(5), None])
    (first, *_) = loopscope.unroll(lively(), BATCH[:3], 3)
    decision = both.decide(first, {})
    again = both.decide(first, decision.kept)
    assert [again.kept["0 seen"][0].tolist(), again.kept["1 seen"][1].tolist()] == [[2.0] * 2, [2.0] * 5]
    assert not decision.leave.any()


@pytest.mark.parametrize("piece", [1, 3, 4, 50])
@pytest.mark.parametrize("name", ["plain", "prelude and coda", "loopformer"])
def test_a_prompt_in_pieces_is_the_prompt(name: str, piece: int) -> None:
    model = lively(name)
    for rule in (None, Erratic()):
        assert run(model, 6, rule=rule, prompt_piece=piece) == run(model, 6, rule=rule)
        rows = {"rule": rule, "loops": [2, 3, 2]}
        assert run(model, 6, prompt_piece=piece, **rows) == run(model, 6, **rows)


def test_logits_after_a_prompt_in_pieces_are_the_whole_texts() -> None:
    model, (ids, _) = lively("prelude and coda"), ragged()
    steps = make_steps(model, Settings(Stopping(1)), torch.zeros(3, dtype=torch.int64), 12)
    with torch.no_grad():
        for piece in ids[:, :-1].split(4, dim=1):
            steps.prefill(piece)
        found = steps.step(ids[:, -1]).logits
        whole = model(ids)[:, -1]
    assert torch.allclose(found, whole, rtol=0, atol=1e-9 * float(whole.abs().max()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loops": [1, 2]}, "loops has 2 entries for 4 prompts; give one value for all, or a list of 4"),
        ({"loops": [1, 2, 0, 1]}, "loops is 0; it must be a whole number from 1 up"),
        ({"new_tokens": [1, 2, 3]}, "new_tokens has 3 entries for 4 prompts"),
        ({"new_tokens": []}, "new_tokens has 0 entries for 4 prompts"),
        ({"new_tokens": [1, 2, 3, -4]}, "new_tokens is -4; it must be a whole number from 1 up"),
        ({"exit_rule": ["fixed"], "threshold": 2}, "exit_rule has 1 entries for 4 prompts"),
        (
            {"exit_rule": ["fixed"] * 4, "threshold": [1, 2, 2]},
            "threshold has 3 entries for 4 prompts",
        ),
        (
            {"exit_rule": ["fixed", None, "fixed", "fixed"], "threshold": [1, 2, 2, 2]},
            "threshold is 2, but no exit_rule is named",
        ),
        ({"exit_rule": ["gate", None, None, None], "threshold": 0.5}, "needs a model with an exit gate"),
        ({"new_tokens": [1, 2, 3, 60]}, "the prompt has 7 tokens and new_tokens is 60"),
    ],
)
def test_lists_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loopscope.generate(lively(positions="learned"), BATCH, **{"new_tokens": 3, **options})


def test_rules_by_name_row_by_row() -> None:
    model = lively()
    chosen = {"exit_rule": ["fixed", None, "fixed", "max-probability"], "threshold": [2, None, 1, 1.0]}
    made = loopscope.generate(model, BATCH, [2, 3, 4, 5], loops=[3, 3, 2, 1], **chosen)
    assert [set(row) for row in made.loops] == [{2}, {3}, {1}, {1}]
    assert [len(row) for row in made.tokens] == [2, 3, 4, 5]
    one = loopscope.generate(model, BATCH, 4, exit_rule=["fixed", None, None, "fixed"], threshold=2)
    assert [set(row) for row in one.loops] == [{2}, {3}, {3}, {2}]


def test_a_piece_without_a_cache_is_warned_about() -> None:
    with pytest.warns(UserWarning, match="prompt_piece has no effect"):
        loopscope.generate(lively(), BATCH, 2, prompt_piece=2, cache=False)
