"""Comparisons from made records: what is separated, what is refused, sentences."""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from loopscope.evaluation.compare.comparison import compare
from loopscope.evaluation.compare.condition import by_place
from loopscope.evaluation.compare.sentences import spans
from loopscope.evaluation.statistics.correction import holm
from loopscope.results import Comparison, decode, to_json
from loopscope.results.codec import json_object
from tests.evaluation.compare.fixtures import study, with_baselines
from tests.evaluation.fixtures import BYTES, drawn, made

THREE = {"a": [2.5, 2.2, 2.2], "b": [2.5, 2.2, 2.2], "c": [3.5, 3.2, 3.3]}


def test_what_is_apart_is_separated_and_what_is_not_is_not() -> None:
    found = compare(study(THREE, seeds=5, of_seed=0.01))
    separated = {(d.one, d.other, d.loop): d.separated for d in found.differences}
    assert separated == {
        (one, other, loop): other == "c" for one, other in combinations("abc", 2) for loop in (1, 2, 3)
    }
    (entry,) = (d for d in found.differences if (d.one, d.other, d.loop) == ("a", "c", 3))
    assert entry.bits_per_byte.mean == pytest.approx(1.1 / math.log(2) / BYTES, abs=0.05)
    assert any(line.startswith("a is better than c at loops 1-3, by ") for line in found.sentences)
    (rest,) = (line for line in found.sentences if "does not separate" in line)
    assert "a and b (" in rest
    assert "a and c" not in rest


def test_what_the_correction_takes_back_is_a_hint() -> None:
    """By hand: t is 6.9 for a and c (p 0.020), 5.8 for b and c (p 0.029); times 3 and 2 neither stands."""
    losses = {"a": (2.0, 2.0, 2.0), "b": (2.01, 2.0, 1.99), "c": (2.15, 2.2, 2.25)}
    runs = [
        made(name, seed, np.full((1, 40), loss))
        for name, values in losses.items()
        for seed, loss in enumerate(values)
    ]
    found = compare(runs)
    assert [d.p for d in found.differences] == pytest.approx([1, 0.0202, 0.0287], abs=1e-3)
    assert [d.p_corrected for d in found.differences] == pytest.approx([1, 0.0606, 0.0606], abs=1e-3)
    hint, apart, _ = found.sentences  # and who is ahead at equal FLOPs
    assert hint.startswith("A hint, no finding")
    assert "a and c (loop 1; " in hint
    assert "b and c (loop 1; " in hint
    assert "a and b (" not in hint
    assert apart.startswith("The data does not separate")
    assert "a and b (" in apart


def test_p_values_are_corrected_over_all_tests() -> None:
    found = compare(study(THREE))
    raw = [d.p for d in found.differences]
    assert len(raw) == 9
    assert [d.p_corrected for d in found.differences] == pytest.approx(holm([p or 0 for p in raw]))
    assert found.settings["tests"] == "9"


@pytest.mark.parametrize("spread", [{"of_seed": 0.1, "of_window": 0.01}, {"of_seed": 0.001, "noise": 0.5}])
def test_a_null_separates_anything_in_at_most_five_percent(
    spread: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No condition differs: the chance that a whole comparison separates anything is what Holm bounds."""
    monkeypatch.setattr("loopscope.evaluation.compare.comparison.provenance", lambda: None)  # it asks git
    same = {name: [2.0, 2.0] for name in "abc"}
    studies = 200
    false = 0
    for seed in range(studies):
        found = compare(study(same, seed=seed, windows=210, **spread))
        false += any(d.separated for d in found.differences)
    assert false / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


def test_the_order_of_windows_changes_nothing() -> None:
    order = np.random.default_rng(1).permutation(40)
    generator = np.random.default_rng(0)
    plain, moved = [], []
    for name in "ab":
        for seed, losses in enumerate(drawn(generator, [2.0, 1.9])):
            plain.append(made(name, seed, losses))
            moved.append(made(name, seed, losses[:, order]))
    for one, other in zip(compare(plain).differences, compare(moved).differences, strict=True):
        assert one.p == pytest.approx(other.p)
        assert one.bits_per_byte.mean == pytest.approx(other.bits_per_byte.mean)
        assert one.bits_per_byte.low == pytest.approx(other.bits_per_byte.low)


def test_fewer_than_three_seeds_give_no_interval_and_say_so() -> None:
    found = compare(study(THREE, seeds=2))
    assert all((d.bits_per_byte.low, d.p, d.separated) == (None, None, False) for d in found.differences)
    assert found.sentences[0].startswith("2 seeds: fewer than 3, so there is no interval")
    assert any("needs 3; none is given" in note for note in found.notes)


def test_seeds_that_differ_are_named_and_the_shared_ones_used() -> None:
    runs = [run for run in study(THREE, seeds=4) if not (run.condition == "b" and run.seed == 1)]
    found = compare(runs)
    assert {d.seeds for d in found.differences} == {3}
    assert found.settings["seeds"] == "0, 2, 3"
    (note,) = (note for note in found.notes if "Seeds differ" in note)
    assert "a: 0, 1, 2, 3; b: 0, 2, 3; c: 0, 1, 2, 3" in note
    assert [verdict.seeds for verdict in found.verdicts] == [4, 3, 4]
    with pytest.raises(ValueError, match=r"no seed is common to all conditions \(a: 0; b: 1\)"):
        compare([made("a", 0, [[1.0, 2.0]]), made("b", 1, [[1.0, 2.0]])])


def test_depths_that_differ_are_compared_where_both_are() -> None:
    found = compare(study({"a": [2.0, 1.9], "b": [2.0, 1.9, 1.8, 1.7]}))
    assert [d.loop for d in found.differences] == [1, 2]
    assert [(o.condition, o.loops) for o in found.options] == [("a", 1), ("a", 2)] + [
        ("b", k) for k in (1, 2, 3, 4)
    ]


def test_a_loss_that_is_not_finite_is_no_finding() -> None:
    runs = study(THREE)
    broken = (
        made("d", 0, np.full((3, 40), math.inf)),
        made("d", 1, np.ones((3, 40))),
        made("d", 2, np.ones((3, 40))),
    )
    found = compare([*runs, *broken])
    beside = [d for d in found.differences if d.other == "d"]
    assert all(d.p is None and not d.separated for d in beside)
    assert any("a and d (no loss that is finite)" in line for line in found.sentences)
    assert not any(o.best_for_loops or o.best_for_time for o in found.options if o.condition == "d")


def test_refusals() -> None:
    runs = study(THREE)
    with pytest.raises(ValueError, match="needs two conditions or more, and there is a"):
        compare(runs[:3])
    with pytest.raises(ValueError, match="there is none"):
        compare([])
    with pytest.raises(ValueError, match="a comes twice with seed 0"):
        compare([*runs, runs[0]])
    for change, words in (
        ({"data": "text of other"}, "different text .data: validation text of stdlib and text of other"),
        ({"sequence": 64}, "sequence: 128 tokens and 64 tokens"),
        ({"bytes_per_token": 2.0}, "bytes_per_token"),
    ):
        with pytest.raises(ValueError, match=words):
            compare([*runs, made("d", 0, np.ones((3, 40)), **change)])
    with pytest.raises(ValueError, match="windows: 40 windows and 41 windows"):
        compare([*runs, made("d", 0, np.ones((3, 41)))])
    with pytest.raises(ValueError, match="other labels count"):
        compare([*runs, made("d", 0, np.ones((3, 40)), labels=[1] * 39 + [2])])
    with pytest.raises(ValueError, match="parameters 1000 at one seed and 2000 at another"):
        compare([*runs, made("a", 7, np.ones((3, 40)), parameters=2000)])
    with pytest.raises(ValueError, match="d, seed 0 has no depth curve yet"):
        compare([*runs, made("d", 0, np.ones((3, 40)), depth=())])


def test_a_comparison_survives_json() -> None:
    found = with_baselines(unlooped=[3.2, 9.0])
    assert decode(Comparison, json_object(to_json(found))) == found


def test_spans() -> None:
    assert spans([3]) == "loop 3"
    assert spans([4, 1, 2, 3, 6, 8, 9]) == "loops 1-4, 6 and 8-9"


def test_windows_of_other_lengths_are_paired_by_their_place_in_the_text() -> None:
    windows = np.random.default_rng(0).standard_normal((3, 12))
    assert np.allclose(by_place(windows, 6), windows.reshape(3, 6, 2).mean(axis=2))
    assert np.allclose(by_place(windows, 5).mean(axis=1), windows.mean(axis=1))
    assert np.allclose(by_place(windows, 8)[:, 0], (windows[:, 0] + windows[:, 1] / 2) / 1.5)
    # One text, read in tokens half as long: 12 windows of the one stand beside 6 of the other.
    text = 2.0 + np.random.default_rng(1).standard_normal(12)
    coarse = [
        made("a", seed, [2 * text.reshape(6, 2).mean(axis=1) + 0.01 * seed], text_hash="x")
        for seed in range(3)
    ]
    fine = [
        made("b", seed, [text + 0.1 + 0.01 * seed], text_hash="x", bytes_per_token=BYTES / 2, trained_loops=1)
        for seed in range(3)
    ]
    found = compare([*(replace(one, trained_loops=1) for one in coarse), *fine])
    (difference,) = found.differences
    assert difference.bits_per_byte.mean == pytest.approx(
        0.2 / math.log(2) / BYTES + 0.01 / math.log(2) / BYTES
    )
    assert difference.p is not None
    assert difference.p < 1e-3  # the text's own ups and downs cancel
    assert found.settings["windows"] == "6, 12"
    with pytest.raises(ValueError, match="evaluated on different text"):
        compare([*coarse, *(replace(one, text_hash="y") for one in fine)])
