"""Means and intervals against closed forms."""

import math
from typing import Any

import pytest

from loopscope.report.study.conditions import estimate, group_runs, labels, runaways, student_t
from loopscope.report.study.findings import findings
from loopscope.report.study.table import headline, number


def test_the_interval_is_students() -> None:
    """Three values 1, 2, 3: mean 2, deviation 1, half-width t(2) / sqrt(3)."""
    found = estimate([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.half == pytest.approx(4.303 / math.sqrt(3))
    assert (found.low, found.high) == (found.mean - found.half, found.mean + found.half)


def test_one_value_has_no_interval_and_none_has_no_mean() -> None:
    assert estimate([4.0]).half is None
    assert math.isnan(estimate([]).mean)
    assert estimate([1.0, math.nan]).half is None


def test_students_quantiles_never_promise_too_much() -> None:
    values = [student_t(degrees) for degrees in range(1, 200)]
    assert values[0] == 12.706
    assert values == sorted(values, reverse=True)
    assert values[-1] >= 1.96


def test_grouping_by_condition_and_size(run_maker: Any) -> None:
    runs = [run_maker("a", 0), run_maker("b", 0), run_maker("a", 1), run_maker("a", 0, size="big")]
    conditions = group_runs(runs)
    assert [(c.name, c.size, len(c.runs)) for c in conditions] == [
        ("a", "laptop", 2),
        ("b", "laptop", 1),
        ("a", "big", 1),
    ]
    assert labels(conditions) == ["a (laptop)", "b", "a (big)"]
    assert conditions[0].per_loop("l2_norm")[3].mean == pytest.approx(10 * 4 * 1.025)


def test_a_runaway_is_large_and_grows(run_maker: Any) -> None:
    flat = tuple(entry for entry in run_maker(scale=500.0).per_loop[:1] * 4)
    conditions = group_runs(
        [
            run_maker("small", scale=1.0),
            run_maker("large", scale=20.0),
            run_maker("large and flat", per_loop=flat),
        ]
    )
    assert [condition.name for condition in runaways(conditions)] == ["large"]


def test_findings_come_from_the_numbers(run_maker: Any, failed_maker: Any) -> None:
    runs = [run_maker("held", scale=1.0), run_maker("runaway", scale=200.0), failed_maker()]
    first, *rest = findings(group_runs(runs))
    assert first == (
        "At the last loop the hidden state of runaway is 200 times the size of that of held "
        "(L2 norm 800 against 4)."
    )
    assert any("10 or more times the smallest: runaway." in sentence for sentence in rest)
    assert any("1 of 3 runs ended early" in sentence for sentence in rest)
    assert findings(group_runs([])) == ["No runs yet."]
    assert findings(group_runs([failed_maker()])) == ["No run completed: 1 ended early."]


def test_a_useless_first_exit_is_said(run_maker: Any) -> None:
    good = run_maker().per_loop
    bad = (good[0].__class__(1, 12.0, math.exp(12.0), 4.0, 1.0, 1.0), *good[1:])
    sentences = findings(group_runs([run_maker("terminal", per_loop=bad)]))
    assert any(
        sentence.startswith("First exits of little use, by perplexity: terminal") for sentence in sentences
    )


def test_the_table_marks_the_lowest_and_the_runaway(run_maker: Any, failed_maker: Any) -> None:
    table = headline(group_runs([run_maker("a", scale=1.0), run_maker("b", scale=50.0), failed_maker()]))
    marks = [[cell.mark for cell in row] for row in table.rows]
    assert marks[1][10:14] == ["runaway"] * 4
    assert "runaway" not in marks[0]
    assert table.rows[2][1].text == "0 of 1"
    assert table.rows[2][1].interval == "1 diverged"
    assert table.rows[2][2].text == ""


def test_deep_and_mixed_studies_fit_the_table(run_maker: Any) -> None:
    table = headline(group_runs([run_maker("deep", loops=32), run_maker("one", loops=1)]))
    headings = table.groups[1][1]
    assert len(headings) == 6
    assert (headings[0], headings[-1]) == ("loop 1", "loop 32")
    assert all(len(row) == len(table.rows[0]) for row in table.rows)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4.9812, "4.98"),
        (685.43, "685.4"),
        (5731.2, "5,731"),
        (667230.0, "667,230"),
        (1.2e13, "1.2·10¹³"),
        (2e-5, "2.0·10⁻⁵"),
        (math.nan, "not finite"),
        (0.0, "0"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text
