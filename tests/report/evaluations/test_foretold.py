"""What was foretold stands beside the depth curve: from the trained depth, in bits per byte, with its band."""

import math
from dataclasses import replace

import pytest

from loopscope.report.evaluations.depth import quality
from loopscope.report.evaluations.foretold import foretold_lines, foretold_sentences
from loopscope.results import ForetoldDepth, ModelEvaluation, Prognosis
from tests.report.evaluations.fixtures import BYTES, groups_of, make_evaluation

AT = (ForetoldDepth(8, 0.3, 0.1, 0.6), ForetoldDepth(16, 0.9, 0.2, 1.5))
TOLD = Prognosis("breaks", "made up", 4, 0.8, AT)


def evaluation(told: Prognosis | None) -> ModelEvaluation:
    return replace(make_evaluation("dense/raw"), prognosis=told)


def test_the_line_starts_at_the_trained_depth_and_has_a_band() -> None:
    (group,) = groups_of(evaluation(TOLD))
    (line,) = foretold_lines(group)
    base = group.per_loop("bits_per_byte")[4].mean
    assert line.x == (4.0, 8.0, 16.0)
    assert line.y == pytest.approx([base + nats / math.log(2) / BYTES for nats in (0.0, 0.3, 0.9)])
    assert line.high == pytest.approx([base + nats / math.log(2) / BYTES for nats in (0.0, 0.6, 1.5)])
    figure = quality([group])
    assert "dense/raw, foretold" in [series.name for series in figure.series]
    assert "Dotted: what was foretold" in figure.caption
    assert foretold_sentences([group]) == [("dense/raw, foretold:", "breaks. made up")]


def test_nothing_is_drawn_where_nothing_was_told() -> None:
    for told in (None, Prognosis("not told", "one loop", 1)):
        (group,) = groups_of(evaluation(told))
        assert foretold_lines(group) == []
        assert "foretold" not in quality([group]).caption
