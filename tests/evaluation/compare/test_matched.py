"""The compute-matched table: looped conditions beside baselines of equal parameters or FLOPs."""

import math

import pytest

from loopscope.evaluation.compare.comparison import compare
from tests.evaluation.compare.fixtures import BASELINES, study, with_baselines
from tests.evaluation.fixtures import BYTES


def test_the_compute_matched_table() -> None:
    found = with_baselines(unlooped=[3.2, 9.0], unlooped_deep=[2.2, 9.0])
    assert [(row.condition, row.role, row.loops) for row in found.matched] == [
        ("raw", "looped", 2),
        ("unlooped", "same parameters", 1),
        ("unlooped-deep", "same FLOPs", 1),
        ("norm", "looped", 2),
        ("unlooped", "same parameters", 1),
        ("unlooped-deep", "same FLOPs", 1),
    ]
    looped, shallow, deep = found.matched[:3]
    assert looped.against is None
    assert (looped.inference_flops, deep.inference_flops) == (200, 200)
    assert (looped.training_flops, shallow.training_flops) == (600 * 5000, 300 * 5000)
    assert shallow.against is not None
    assert shallow.against.mean == pytest.approx(1.0 / math.log(2) / BYTES, abs=0.05)
    assert (shallow.separated, deep.separated) == (True, False)
    assert any(
        line.startswith("With the same parameters, raw at 2 loops is better than unlooped by 0.")
        for line in found.sentences
    )
    assert any("raw at 2 loops and unlooped-deep (the same FLOPs" in line for line in found.sentences)
    assert [verdict.condition for verdict in found.verdicts] == ["raw", "norm"]
    # No difference at a loop of its own is made of a model that has none, but its tests are corrected with the rest.
    assert {d.other for d in found.differences} == {"norm"}
    assert found.settings["tests"] == "8"
    assert not any(o.best_for_loops for o in found.options if o.condition.startswith("unlooped"))


def test_a_baseline_under_a_condition_goes_beside_that_one() -> None:
    means = {"dense/raw": [2.5, 2.2], "dense/norm": [2.4, 2.3], "unlooped:dense/raw": [2.6, 9]}
    found = compare(study(means, over={"unlooped:dense/raw": BASELINES["unlooped"]}))
    assert [row.condition for row in found.matched] == ["dense/raw", "unlooped:dense/raw"]


def test_a_baseline_that_is_not_matched_is_left_out_and_named() -> None:
    over = {"unlooped": {**BASELINES["unlooped"], "parameters": 1500}}
    found = compare(study({"raw": [2.5, 2.2], "unlooped": [2.6, 9]}, over=over))
    assert found.matched == ()
    assert "unlooped is no match for raw: 1000 against 1500 parameters." in found.notes


def test_runs_trained_on_other_amounts_are_named() -> None:
    found = compare(study({"a": [2.0], "b": [2.0]}, over={"b": {"tokens_trained": 9000}}))
    assert any(
        "not trained on the same number of tokens (a: 5,000; b: 9,000)" in note for note in found.notes
    )
