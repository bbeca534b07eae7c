"""Figures of the pages on depth: what they draw is what rows say, and they are drawn."""

import pytest

from benchmarks.claim_rows import load_rows
from benchmarks.claim_tables import differences
from benchmarks.depth_figures import gains, told_and_true, worth


def test_gains_are_the_differences_of_the_table() -> None:
    rows = [
        row for row in load_rows() if (row.size, row.start, row.learning_rate) == ("0.7m", "scaled", 1e-3)
    ]
    (found,) = gains(rows).values()
    conditions: dict = {}  # type: ignore[type-arg]
    for row in rows:
        conditions.setdefault(row.condition, {})[row.seed] = row
    table = {line.split("|")[1].strip(): line for line in differences(conditions).splitlines()[2:]}
    assert set(found) == {"dense/raw", "dense/final-only", "dense/rmsnorm+penalty", "dense/rmsnorm+interloop"}
    for name, values in found.items():
        mean = sum(values) / len(values)
        assert f"{mean:+.3f} (" in table[f"{name} - dense/rmsnorm"]


def test_both_are_drawn() -> None:
    figure = worth(load_rows())
    assert len(figure.axes) == len(gains(load_rows()))
    assert all(panel.lines for panel in figure.axes)
    (ax,) = told_and_true().axes
    drawn = sum(len(line.get_xdata()) for line in ax.lines if line.get_linestyle() == "None")
    assert drawn == 36 + 84 + 36
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels[1].endswith("78 of 84 fates right")
    assert pytest.approx(0.405, abs=1e-3) in [
        line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":"
    ]
