"""Models that do not run past their trained depth: a table with a row for every loop, or numbers that end there."""

from typing import Any

import pytest
import torch
from torch import Tensor

import loopscope
from loopscope.audit.audit_report import judge
from loopscope.evaluation import prognose
from loopscope.recurrence import LoopContext
from loopscope.recurrence.model_errors import NOT_FINITE
from tests.audit.toy_maps import DIM, Toy, basis

TEXTS = torch.arange(24).view(2, 12) % 12
LABELS = (TEXTS * 7 + 1) % 12


class Rows(Toy):
    """Adds another row of a table in every loop, and has so many."""

    def __init__(self, rows: int) -> None:
        super().__init__(
            lambda m, h, loop, context: h, loops=3, matrix=basis(torch.linspace(0.1, 0.5, DIM))[0]
        )
        self.rows = torch.nn.Parameter(torch.randn(rows, DIM, generator=torch.Generator().manual_seed(8)))

    def core(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
        return hidden + hidden @ self.matrix.T + self.rows[loop - 1]


def test_a_table_with_a_row_for_every_trained_loop_is_audited_as_far_as_it_goes() -> None:
    report = loopscope.audit(Rows(3), TEXTS, LABELS, rounding="bf16,int8")
    longer = loopscope.audit(Rows(64), TEXTS, LABELS, rounding="bf16,int8")
    assert report.verdict == longer.verdict
    assert [loop.status for loop in report.loops] == [loop.status for loop in longer.loops]
    for loop, other in zip(report.loops[:2], longer.loops[:2], strict=True):
        assert loop.carry == pytest.approx(other.carry)
    assert report.loops[2].carry == report.loops[1].carry
    assert len(report.dynamics) == 3
    assert len(report.expansion.rms) == 3
    assert report.expansion.rms == pytest.approx(longer.expansion.rms[:3])
    for tried in report.rounding:
        assert len(tried.loops) == 3
        assert tried.why.endswith("Beyond loop 3 the model does not run.")
    (note,) = report.notes
    assert note.startswith("It does not run 4 loops (IndexError: index 3 is out of bounds")
    assert longer.notes == ()


def test_the_verdict_alone_of_such_a_model_is_the_same() -> None:
    fast = judge(Rows(3), TEXTS, LABELS)
    assert fast.verdict == loopscope.audit(Rows(3), TEXTS, LABELS, rounding=None).verdict
    assert fast.notes[-1].startswith("It does not run 4 loops")
    assert prognose(Rows(3), TEXTS, LABELS).fate == "not told"


def test_one_that_ends_later_is_followed_until_there() -> None:
    report = loopscope.audit(Rows(7), TEXTS, LABELS)
    assert (len(report.expansion.rms), len(report.rounding[0].loops)) == (7, 7)
    assert report.notes == ("It does not run 8 loops: nothing was measured past loop 7.",)


def test_one_whose_states_depend_on_the_depth_is_followed_to_the_deepest_run() -> None:
    class Conditioned(Rows):
        depth_conditioned = True

        def embed(self, input_ids: Tensor) -> Tensor:
            return super().embed(input_ids)

        def core(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
            if context.loops > 5:
                raise ValueError("at most 5 loops")
            return super().core(hidden, loop, context) / context.loops

    report = loopscope.audit(Conditioned(64), TEXTS, LABELS, rounding="bf16,int8")
    assert len(report.expansion.rms) == 5
    assert [len(tried.loops) for tried in report.rounding] == [5, 5]
    assert "It does not run 6 loops: nothing was measured past loop 5." in report.notes


def test_an_only_loop_that_no_other_follows_is_audited() -> None:
    model = Rows(1)
    model.loops = 1
    report = loopscope.audit(model, TEXTS, LABELS, rounding="bf16,int8")
    assert report.verdict in ("visible", "removed")
    assert report.notes[-1].startswith("It does not run 2 loops (IndexError")
    assert judge(model, TEXTS, LABELS).verdict == report.verdict


class Ending(Rows):
    """Not finite from a loop on, for one token or for all."""

    def __init__(self, end: int, token: int | None) -> None:
        super().__init__(64)
        self.end, self.token = end, token

    def core(self, hidden: Tensor, loop: int, context: LoopContext) -> Tensor:
        later = super().core(hidden, loop, context)
        if loop < self.end:
            return later
        unfit: Any = slice(None) if self.token is None else self.token
        later = later.clone()
        later[:, unfit] = torch.nan
        return later


@pytest.mark.parametrize("token", [None, 5])
def test_a_state_that_is_not_finite_at_its_trained_depth_is_refused_in_words(token: int | None) -> None:
    count = 24 if token is None else 2
    with pytest.raises(ValueError, match=rf"not finite in fp32 at loop 3 of 3, for {count} of 24 tokens"):
        loopscope.audit(Ending(3, token), TEXTS, LABELS)


@pytest.mark.parametrize("token", [None, 5])
def test_one_that_is_not_finite_right_after_it_is_audited(token: int | None) -> None:
    report = loopscope.audit(Ending(4, token), TEXTS, LABELS)
    assert report.verdict == loopscope.audit(Rows(64), TEXTS, LABELS, rounding=None).verdict
    assert report.rounding[0].why.endswith(f"Beyond loop 3 the model {NOT_FINITE}.")
    assert prognose(Ending(4, token), TEXTS, LABELS).fate == "breaks"
