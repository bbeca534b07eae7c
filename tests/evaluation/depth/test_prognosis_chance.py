"""What a text of N tokens can say of a change of the loss: against texts that are drawn, and in the prognosis."""

import pytest
import torch

from benchmarks.fates_runs import AUDIT_TOKENS, TRUTH_WINDOWS, load_runs
from loopscope.evaluation import prognose
from loopscope.evaluation.depth.prognosis import judge_signs
from loopscope.evaluation.depth.prognosis_constants import FITTED
from loopscope.evaluation.depth.prognosis_rule import by_chance, movements
from loopscope.results import LoopSigns
from tests.audit.fixtures import IDS, LABELS, make

SIGNS = [LoopSigns(loop, 3.0, 1.0, 0.0, 0.1, 1.0, 0.001, 1.0) for loop in range(1, 7)]


@pytest.mark.parametrize(("size", "tokens"), [(0.03, 64), (0.1, 256), (0.3, 512)])
def test_texts_that_are_drawn_lie_as_far_off_as_said(size: float, tokens: int) -> None:
    """Of a model that is right, by a move of its logits: 80 % of texts say the change within the distance."""
    draws = torch.Generator().manual_seed(7)
    logits = torch.randn(50, generator=draws)
    before = logits.log_softmax(-1)
    after = (logits + size * torch.randn(50, generator=draws)).log_softmax(-1)
    moved = float((before.exp() * (before - after)).sum())
    texts = torch.multinomial(before.exp(), 1000 * tokens, True, generator=draws).view(1000, tokens)
    off = ((before - after)[texts].mean(dim=1) - moved).abs()
    inside = float((off <= by_chance(moved, tokens, 0.8)).float().mean())
    assert 0.75 < inside < 0.85


def test_trained_models_lie_about_as_far_off_on_two_texts() -> None:
    """Of all committed runs: the change to loop K + 2 on the audit's text and on the other, over what is said."""
    off = []
    for run in (run for size in ("narrow", "laptop", "depths") for run in load_runs(size)):
        trained = run.trained_loops
        moved = movements(run.signs, trained, trained + 2)["moved"]
        seen = run.signs[trained + 1].cross_entropy - run.signs[trained - 1].cross_entropy
        chance = by_chance(moved, AUDIT_TOKENS, 0.8) ** 2 + by_chance(moved, TRUTH_WINDOWS * 64, 0.8) ** 2
        off.append(abs(seen - run.change(trained + 2)) <= chance**0.5)
    assert len(off) == 186
    assert 0.6 < sum(off) / len(off) < 0.85


def test_fewer_tokens_make_wider_intervals_and_no_other_words() -> None:
    widths = []
    for tokens in (None, 100_000, 1000, 10):
        told = judge_signs(SIGNS, 4, True, tokens)
        assert told.tokens == tokens
        assert [row.change for row in told.at] == [row.change for row in judge_signs(SIGNS, 4, True).at]
        assert all(row.low < row.change < row.high for row in told.at)
        widths.append(told.at[1].high - told.at[1].low)
    assert widths[0] == pytest.approx(widths[1], rel=0.01)
    assert widths[1] < widths[2] < widths[3] / 5


def test_tokens_without_a_label_do_not_count() -> None:
    labels = LABELS.clone()
    labels[0] = -100
    told, fewer = (prognose(make(), IDS, each) for each in (LABELS, labels))
    assert (told.tokens, fewer.tokens) == (LABELS.numel(), LABELS[1:].numel())


def test_a_parabola_is_followed_to_its_end_by_the_steady_way() -> None:
    """Steps of one length along a straight way: slope and curve past K + 2 are all that the loss then does."""
    curve, lowest = 0.01, 1.0
    loss = lambda step: 3.0 + curve * (step - lowest) ** 2  # noqa: E731
    signs = [LoopSigns(loop, loss(loop - 4), 1.0, 0.0, 0.1, 1.0, curve, 1.0) for loop in range(1, 7)]
    for loops in (8, 16):
        found = movements(signs, 4, loops, steady=True)
        assert found["loss"] + found["moved"] == pytest.approx(loss(loops - 4) - loss(0), rel=1e-6)


def test_an_interval_spans_both_ways() -> None:
    told = judge_signs(SIGNS, 4, True)
    for row, times in zip(told.at, (2, 4), strict=True):
        steady = movements(SIGNS, 4, row.loops, steady=True)
        other = sum(FITTED[times].steady[name] * steady[name] for name in steady)
        assert row.low < min(other, row.change)
        assert row.high > max(other, row.change)
