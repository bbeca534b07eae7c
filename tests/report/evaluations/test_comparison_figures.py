"""What the figures and tables of comparisons show is what their records hold."""

from dataclasses import replace

import pytest

from loopscope.report.evaluations.calibrated import calibration_table
from loopscope.report.evaluations.differences import difference_table, forest
from loopscope.report.evaluations.exits import trade_off
from loopscope.report.evaluations.matched import matched_figure, matched_table
from loopscope.report.evaluations.pareto import against_flops, against_loops, against_time, equal_flops_table
from loopscope.results import Comparison, EqualFlops, decode, to_json
from loopscope.results.codec import json_object
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
    assert time is not None
    assert loops.series[0].name == "front"
    assert loops.series[0].x == (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    assert named(loops, "a").hollow == (False,) * 6
    assert named(loops, "b").hollow == (True,) * 6
    assert named(loops, "b").color == groups[1].color
    assert named(time, "a").x == pytest.approx([20.0 * k for k in range(1, 7)])
    assert named(time, "a").hollow == (False,) * 4 + (True,) * 2
    assert "not drawn" not in time.caption


def test_arithmetic_is_drawn_beside_time_and_without_it() -> None:
    made = make_comparison(("a", "b"))
    looks = looks_for(made)
    figure = against_flops(made, looks)
    assert figure.key == "evaluation-pareto-flops"
    assert figure.x_label == "forward FLOPs per token"  # a record of before
    assert named(figure, "b").x == tuple(2e6 * k for k in range(1, 7))
    last = replace(made.options[-1], seconds_per_token=None)
    assert against_time(replace(made, options=(*made.options[:-1], last)), looks) is None
    uncounted = replace(made.options[0], flops_per_token=None)
    figure = against_flops(replace(made, options=(uncounted, *made.options[1:])), looks)
    assert len(named(figure, "a").x) == 5
    assert "not drawn: 1" in figure.caption


def test_who_is_ahead_at_equal_flops_is_a_table() -> None:
    made = make_comparison(("a", "b"))
    options = tuple(
        replace(o, flops_per_byte=(o.flops_per_token or 0.0) / 2, best_for_flops=o.loops < 3)
        for o in made.options
    )
    ahead = (
        EqualFlops(5e5, "a", 1, around(2.3, 0.02), None, None, None),
        EqualFlops(1e6, "b", 2, around(2.1, 0.02), "a", 2, around(0.04, 0.01)),
    )
    comparison = replace(made, options=options, equal_flops=ahead, settings={"flops": "FLOPs are counted so"})
    looks = looks_for(comparison)
    figure = against_flops(comparison, looks)
    assert figure.x_label == "forward FLOPs per byte of text"
    assert named(figure, "a").x[0] == 5e5
    assert named(figure, "a").hollow == (False,) * 2 + (True,) * 4
    assert figure.caption.endswith("FLOPs are counted so.")
    table = equal_flops_table(comparison, looks)
    assert table is not None
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["a", "500,000", "1", "2.30", "", "", ""],
        ["b", "1,000,000", "2", "2.10", "a", "2", "+0.0400"],
    ]
    assert equal_flops_table(made, looks) is None
    again = decode(Comparison, json_object(to_json(comparison)))
    assert again.equal_flops == ahead


def test_unlooped_models_have_no_place_on_the_axis_of_loops() -> None:
    made = make_comparison(("a", "b"))
    unlooped = replace(made.options[0], condition="unlooped", loops=1)
    comparison = replace(made, options=(*made.options, unlooped))
    assert "unlooped" not in {
        series.name for series in against_loops(comparison, looks_for(comparison)).series
    }
    assert "unlooped" in {series.name for series in against_flops(comparison, looks_for(comparison)).series}


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
