"""Means and intervals against closed forms."""

import math
from typing import Any

import pytest

from loopscope.report.looks import Looks, condition_of
from loopscope.report.plots.figure import OTHER_COLORS, PALETTE, shorten_apart
from loopscope.report.plots.ticks import log_ticks, tick_name
from loopscope.report.study.conditions import Estimate, estimate, group_runs, looks_of, runaways
from loopscope.report.study.findings import findings
from loopscope.report.study.table import HeadlineTable, TableCell, figures, headline, number


def test_the_interval_is_students_from_three_seeds_on() -> None:
    """Three values 1, 2, 3: mean 2, deviation 1, half-width t(2) / sqrt(3); two values have none."""
    found = estimate("bits_per_byte", [1.0, 2.0, 3.0])
    half = 4.3027 / math.sqrt(3)
    assert (found.mean, found.low, found.high) == pytest.approx((2.0, 0.0, 2 + half), rel=1e-4)  # cut at zero
    assert estimate("bits_per_byte", [1.0, 2.0]) == Estimate(1.5, (1.0, 2.0))
    assert estimate("perplexity", [8.8e21, 8.8e23]).low is None


def test_perplexity_has_an_interval_of_factors() -> None:
    found = estimate("perplexity", [1e20, 1e22, 1e24])
    assert found.mean == pytest.approx(1e22)
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low < found.mean < found.high
    assert found.low * found.high == pytest.approx(found.mean**2)


def test_one_value_has_no_interval_and_none_has_no_mean() -> None:
    assert estimate("loss", [4.0]) == Estimate(4.0, (4.0,))
    assert math.isnan(estimate("loss", []).mean)
    assert estimate("loss", [1.0, math.nan, 2.0]).low is None
    assert estimate("loss", [4.0]).ends == (4.0, 4.0)


def test_a_condition_has_one_look_whoever_asks() -> None:
    looks = Looks(
        [("dense/rmsnorm", "laptop"), ("dense/raw", "laptop"), ("dense/raw", None), ("other", None)]
    )
    assert [looks.of(name).color for name in ("dense/rmsnorm", "dense/raw", "other")] == list(PALETTE[:3])
    assert looks.of("dense/raw") == looks.of("dense/raw", "laptop") == looks.of("dense/raw", "unknown")
    two = Looks([("a", "small"), ("a", "big")])
    assert [two.of("a", size).name for size in ("small", "big")] == ["a (small)", "a (big)"]
    assert two.of("a (big)") == two.of("a", "big")
    with pytest.raises(KeyError):
        looks.of("nobody")
    assert condition_of("dense/raw, seed 2") == "dense/raw"
    assert not set(PALETTE) & set(OTHER_COLORS)


def test_names_that_differ_read_differently_however_short() -> None:
    names = [f"condition/{'long-' * 12}{n}" for n in range(12)]
    assert len(set(shorten_apart(names, 20))) == 12
    assert max(map(len, shorten_apart(names, 20))) <= 24
    assert shorten_apart(["same", "same"], 3) == ["s…e", "s…e"]


def test_a_column_of_numbers_has_its_points_in_line() -> None:
    texts = ["2.80", "17.0", "1,234", "not finite", "1.2·10⁹", "−3.456"]
    table = HeadlineTable((("", ("a",)),), tuple((TableCell(text),) for text in texts))
    padded = [text + pad for text, (pad,) in zip(texts, table.pads, strict=True)]
    assert padded == ["2.800", "17.000", "1,234.000", "not finite", "1.2·10⁹", "−3.456"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.8, "2.80"), (17.0, "17.0"), (0.0125, "0.0125"), (99.96, "100"), (0.0, "0"), (5731.2, "5,731")],
)
def test_numbers_of_a_table_keep_their_zeros(value: float, text: str) -> None:
    assert figures(value) == text


def test_ticks_are_numbers_that_anyone_reads() -> None:
    assert [name for _, name in log_ticks([3.0, 40.0])] == [
        "1",
        "2",
        "5",
        "10",
        "20",
        "50",
        "100",
        "200",
        "500",
    ]
    assert [name for _, name in log_ticks([1.0, 3e24])][-1] == "10²⁴"
    assert len(log_ticks([1.0, 3e24])) <= 10
    assert [name for _, name in log_ticks([2e-5, 1.0])] == ["10⁻⁵", "10⁻⁴", "0.001", "0.01", "0.1", "1"]
    assert tick_name(2e12) == "2·10¹²"


def test_grouping_by_condition_and_size(run_maker: Any) -> None:
    runs = [run_maker("a", 0), run_maker("b", 0), run_maker("a", 1), run_maker("a", 0, size="big")]
    conditions = group_runs(runs)
    assert [(c.name, c.size, len(c.runs)) for c in conditions] == [
        ("a", "laptop", 2),
        ("b", "laptop", 1),
        ("a", "big", 1),
    ]
    looks = looks_of(conditions)
    names = [looks.of(condition.name, condition.size).name for condition in conditions]
    assert names == ["a (laptop)", "b", "a (big)"]
    assert conditions[0].per_loop("l2_norm")[3].mean == pytest.approx(10 * 4 * math.sqrt(1.05))


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


def test_text_that_a_tokenizer_loses_is_a_column_of_the_table(run_maker: Any) -> None:
    lossless = headline(group_runs([run_maker("a")]))
    lossy = headline(group_runs([run_maker("a"), run_maker("b", unknown_share=0.0912)]))
    assert lossless.groups[-1] == ("", ("drift",))
    assert lossy.groups[-1] == ("", ("drift", "unknown tokens"))
    assert [row[-1].text for row in lossy.rows] == ["0.0 %", "9.1 %"]
