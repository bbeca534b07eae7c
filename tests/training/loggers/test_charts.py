"""A record of metrics, as what trackers draw."""

import math

from loopscope.training.loggers.charts import MOST_LINES, charts_of, shown_loops


def test_scale_is_the_norm_over_the_root_of_the_width() -> None:
    record = {"kind": "train", "step": 3, "loss": 1.5, "l2_norm": [8.0, 16.0], "cross_entropy": [2.0, None]}
    charts = charts_of(record, dim=16)
    assert charts.by_loop == {
        "loops/scale_rms": {1: 2.0, 2: 4.0},
        "loops/cross_entropy": {1: 2.0},  # a step that ran one loop has no second one
    }
    assert charts.numbers == {"train/loss": 1.5}


def test_what_is_not_finite_is_left_out() -> None:
    record = {
        "kind": "train",
        "step": 1,
        "loss": None,
        "l2_norm": [None],
        "gradient_norm": math.inf,
        "tokens": 8,
    }
    assert charts_of(record, dim=4).numbers == {"train/tokens": 8.0}
    assert charts_of(record, dim=4).by_loop == {}


def test_evaluations_checks_and_failures() -> None:
    entries = [{"loop": loop, "loss": 1.0 / loop, "bits_per_byte": None} for loop in (1, 2)]
    assert charts_of({"kind": "evaluation", "step": 2, "per_loop": entries}, 4).by_loop == {
        "loops/validation_loss": {1: 1.0, 2: 0.5}
    }
    check = {"kind": "monitor", "step": 2, "growth": 0.5, "rate": None, "carry": [0.9, 1.0], "exposure": []}
    assert charts_of(check, 4).numbers == {"monitor/growth": 0.5}
    assert charts_of(check, 4).by_loop == {"monitor/carry_by_loop": {1: 0.9, 2: 1.0}}
    failure = charts_of({"kind": "failure", "step": 2, "failure": {}}, 4)
    assert not failure.numbers
    assert not failure.by_loop


def test_a_deep_model_has_a_few_lines_evenly_spread() -> None:
    assert shown_loops(MOST_LINES) == tuple(range(1, MOST_LINES + 1))
    for loops in (17, 64, 10_000):
        shown = shown_loops(loops)
        assert len(set(shown)) == MOST_LINES
        assert (shown[0], shown[-1]) == (1, loops)
