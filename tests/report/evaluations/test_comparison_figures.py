"""What the figures and tables of comparisons show is what their records hold."""

from dataclasses import replace

import pytest

from loopscope.report.evaluations.calibrated import calibration_table
from loopscope.report.evaluations.differences import difference_table, forest
from loopscope.report.evaluations.exits import trade_off
from loopscope.report.evaluations.matched import matched_figure, matched_table
from loopscope.report.evaluations.pareto import against_loops, against_time
from tests.report.evaluations.fixtures import (
    around,
    groups_of,
    looks_for,
    make_comparison,
    make_evaluation,
    make_exits,
    named,
    section_of,
)


def test_the_forest_has_differences_with_intervals_at_the_trained_depth() -> None:
    comparison = make_comparison(("a", "b", "c"))
    figure = forest(comparison, looks_for(comparison))
    apart, close = named(figure, "the second is worse"), named(figure, "not separated")
    assert (apart.x, apart.low, apart.high) == ((0.03,), (pytest.approx(0.01),), (pytest.approx(0.05),))
    assert close.hollow == (True, True)
    names = dict(figure.y_ticks)
    assert [names[y] for y in (*close.y, *apart.y)] == ["b − a", "c − b", "c − a"]
    assert "second minus the first" in figure.caption
    assert figure.title == "Conditions compared at loop 4"
    assert [(mark.axis, mark.at) for mark in figure.marks] == [("x", 0.0)]
    table = difference_table(comparison, looks_for(comparison))
    assert table is not None
    assert [cell.text for cell in table.rows[1]][:6] == ["a", "c", "+0.0300", "0.005", "0.03", "separated"]


def test_too_few_seeds_give_no_interval_and_that_is_said() -> None:
    comparison = make_comparison(("a", "b"), half=None)
    figure = forest(comparison, looks_for(comparison))
    (cloud,) = figure.series
    assert cloud.low == ()
    assert cloud.name == "not separated"
    assert "Too few seeds for intervals" in figure.caption


def test_of_many_pairs_those_with_the_best_are_drawn() -> None:
    names = [f"c{n:02}" for n in range(12)]
    comparison = make_comparison(names)
    figure = forest(comparison, looks_for(comparison))
    assert len(figure.y_ticks) == 11
    assert all(name.endswith("− c00") for _, name in figure.y_ticks)
    assert "11 of 66 pairs" in figure.caption


def test_the_front_is_what_the_record_marks() -> None:
    comparison = make_comparison(("a", "b", "c"))
    groups = groups_of(make_evaluation("a"), make_evaluation("b"))
    looks = looks_for(comparison)
    loops, time = against_loops(comparison, looks), against_time(comparison, looks)
    assert loops.series[0].name == "front"
    assert loops.series[0].x == (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    assert named(loops, "a").hollow == (False,) * 6
    assert named(loops, "b").hollow == (True,) * 6
    assert named(loops, "b").color == groups[1].color
    assert named(time, "a").x == pytest.approx([20.0 * k for k in range(1, 7)])
    assert named(time, "a").hollow == (False,) * 4 + (True,) * 2
    assert "not drawn" not in time.caption


def test_without_measured_time_the_arithmetic_is_drawn() -> None:
    made = make_comparison(("a", "b"))
    last = replace(made.options[-1], seconds_per_token=None)
    looks = looks_for(made)
    figure = against_time(replace(made, options=(*made.options[:-1], last)), looks)
    assert figure.key == "evaluation-pareto-flops"
    assert named(figure, "b").x == tuple(2e6 * k for k in range(1, 7))
    uncounted = replace(made.options[0], seconds_per_token=None, flops_per_token=None)
    figure = against_time(replace(made, options=(uncounted, *made.options[1:])), looks)
    assert len(named(figure, "a").x) == 5
    assert "not drawn: 1" in figure.caption


def test_unlooped_models_have_no_place_on_the_axis_of_loops() -> None:
    made = make_comparison(("a", "b"))
    unlooped = replace(made.options[0], condition="unlooped", loops=1)
    comparison = replace(made, options=(*made.options, unlooped))
    assert "unlooped" not in {
        series.name for series in against_loops(comparison, looks_for(comparison)).series
    }
    assert "unlooped" in {series.name for series in against_time(comparison, looks_for(comparison)).series}


def test_a_bound_is_named_so_in_the_table_and_has_no_calibrated_point() -> None:
    exits = make_exits()
    oracle = replace(exits.calibrations[0], rule="oracle")
    groups = groups_of(make_evaluation(exits=replace(exits, calibrations=(oracle,))))
    assert not [series for series in trade_off(groups, "sequence").series if series.symbol == "diamond"]
    table = calibration_table(groups)
    assert table is not None
    assert table.rows[0][1].text == "oracle (a bound)"


def test_sentences_between_the_first_and_the_last_unfold() -> None:
    said = [f"sentence {number}" for number in range(9)]
    section = section_of(comparison=make_comparison(("a", "b"), sentences=tuple(said)))
    part = next(part for part in section.parts if part.key == "comparison")
    assert [sentence for _, sentence in part.said] == [*said[:3], *said[6:]]
    assert [sentence for _, sentence in part.rest] == said[3:6]
    short = section_of(comparison=make_comparison(("a", "b"), sentences=tuple(said[:4])))
    part = next(part for part in short.parts if part.key == "comparison")
    assert [sentence for _, sentence in part.said] == said[:4]
    assert part.rest == ()


def test_looping_against_no_looping() -> None:
    comparison = make_comparison(("a", "b"))
    looks = looks_for(comparison)
    figure, table = matched_figure(comparison, looks), matched_table(comparison, looks)
    assert [(s.name, s.symbol) for s in figure.series] == [
        ("a", "circle"), ("unlooped", "square"), ("unlooped, deep", "diamond")
    ]  # fmt: skip
    assert [series.color for series in figure.series] == [looks.of(s.name).color for s in figure.series]
    assert [series.x for series in figure.series] == [(1.9,), (2.0,), (1.89,)]
    assert figure.series[0].low == (pytest.approx(1.88),)
    assert table is not None
    assert [row[-1].text for row in table.rows] == ["", "looping is better", "not separated"]
    worse = replace(comparison.matched[1], against=around(-0.2))
    table = matched_table(replace(comparison, matched=(worse,)), looks)
    assert table is not None
    assert table.rows[0][-1].text == "looping is worse"
