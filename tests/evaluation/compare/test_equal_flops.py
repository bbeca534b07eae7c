"""Who is ahead within an amount of arithmetic: at whatever depth, per byte of text, with paired differences."""

import math

import pytest

from loopscope.evaluation.compare.comparison import compare
from tests.evaluation.compare.fixtures import study

EXACT = {"of_seed": 0.0, "of_window": 0.0, "noise": 0.0}
BITS = 1 / math.log(2) / 3.5
"""A nat per token in bits per byte, of the fixtures' text."""


def test_the_best_of_any_condition_and_depth_within_an_amount() -> None:
    """a costs 100 a loop, b 150: a is ahead till b's second loop, which a's third is behind."""
    over = {"b": {"flops_per_token": (150.0, 300.0)}}
    found = compare(study({"a": [3.0, 2.5, 2.4], "b": [2.9, 2.0]}, over=over, **EXACT))
    rows = [
        (e.flops_per_byte * 3.5, e.condition, e.loops, e.second, e.second_loops) for e in found.equal_flops
    ]
    assert rows == [
        (pytest.approx(100), "a", 1, None, None),
        (pytest.approx(150), "b", 1, "a", 1),
        (pytest.approx(200), "a", 2, "b", 1),
        (pytest.approx(300), "b", 2, "a", 3),
    ]
    behind = [entry.behind for entry in found.equal_flops]
    assert behind[0] is None
    assert [b.mean / BITS for b in behind if b is not None] == [pytest.approx(d) for d in (0.1, 0.4, 0.4)]
    assert all(b.low is not None for b in behind[1:] if b is not None)  # three seeds
    best = {(o.condition, o.loops) for o in found.options if o.best_for_flops}
    assert best == {("a", 1), ("b", 1), ("a", 2), ("b", 2)}
    assert found.sentences[-1] == (
        "At equal FLOPs per byte of text, ahead by their means are a from 29 on (loop 1); then b from 43 on (loop 1); "
        "then a from 57 on (loop 2); then b from 86 on (loop 2)."
    )


def test_one_that_is_always_ahead_is_set_beside_the_others_where_they_can_run() -> None:
    """a's one loop beats all that b has, from 150 on; below that there is nothing to beat."""
    over = {"b": {"flops_per_token": (150.0, 300.0, 450.0)}}
    found = compare(study({"a": [2.0, 2.1], "b": [2.9, 2.5, 2.6]}, over=over, **EXACT))
    rows = [
        (e.flops_per_byte * 3.5, e.condition, e.loops, e.second, e.second_loops) for e in found.equal_flops
    ]
    assert rows == [
        (pytest.approx(100), "a", 1, None, None),
        (pytest.approx(150), "a", 1, "b", 1),
        (pytest.approx(300), "a", 1, "b", 2),
    ]
    behind = [entry.behind.mean / BITS for entry in found.equal_flops if entry.behind is not None]
    assert behind == [pytest.approx(0.9), pytest.approx(0.5)]
    assert found.sentences[-1] == (
        "At equal FLOPs per byte of text, a is ahead at every amount from 29 on (loop 1), by its mean; no other runs "
        "on less than 43."
    )


def test_longer_tokens_cost_less_a_byte() -> None:
    """As much per token, and twice the bytes in each: another tokenizer on the same text."""
    wide = {"bytes_per_token": 7.0, "windows": 20, "text_hash": "same"}
    over = {"a": {"text_hash": "same"}, "b": wide}
    runs = study({"a": [2.0, 1.9], "b": [5.0, 4.6]}, over=over, **EXACT)
    found = compare(runs)
    first = found.equal_flops[0]
    assert (first.condition, first.flops_per_byte) == ("b", pytest.approx(100 / 7))


def test_one_condition_may_be_ahead_everywhere_and_none_where_nothing_was_counted() -> None:
    found = compare(study({"a": [2.0, 1.9], "b": [2.1, 2.0]}, **EXACT))
    assert found.sentences[-1].startswith(
        "At equal FLOPs per byte of text, a is ahead at every amount from 29 on (loops 1"
    )
    assert [(e.second, e.second_loops) for e in found.equal_flops] == [("b", 1), ("b", 2)]
    none = {name: {"flops_per_token": ()} for name in "ab"}
    bare = compare(study({"a": [2.0, 1.9], "b": [2.1, 2.0]}, over=none, **EXACT))
    assert bare.equal_flops == ()
    assert not any(option.best_for_flops for option in bare.options)
    assert "not counted: a, b" in bare.settings["flops"]
    assert "from the config: a, b" in found.settings["flops"]


def test_a_loss_that_is_no_number_is_nobodys_best() -> None:
    found = compare(study({"a": [2.0, math.nan], "b": [math.nan, 1.5]}, **EXACT))
    assert [(e.condition, e.loops, e.second) for e in found.equal_flops] == [("a", 1, None), ("b", 2, "a")]
