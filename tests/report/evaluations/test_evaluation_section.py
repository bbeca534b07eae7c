"""The whole section: both renderers draw all of it, and what is missing or not finite is left out or said."""

import math
from dataclasses import replace

import pytest

from loopscope.report.evaluations.depth_grid import BANDS, glance
from loopscope.report.evaluations.differences import forest
from loopscope.report.evaluations.exits import trade_off
from loopscope.report.evaluations.section import build_evaluation_section
from loopscope.report.found import EvaluationFiles
from loopscope.report.plots.to_matplotlib import draw, sheet
from loopscope.report.plots.to_plotly import to_plotly
from loopscope.results import Comparison, Difference
from tests.report.evaluations.fixtures import (
    around,
    broken_evaluation,
    curve_of,
    groups_of,
    looks_for,
    make_comparison,
    make_evaluation,
    make_exits,
    named,
    point,
    section_of,
    whole,
)

CLASSES = (*BANDS, math.inf)


def test_every_figure_is_drawn_by_both_renderers() -> None:
    section = whole()
    assert {figure.key for figure in section.figures} == {
        "evaluation-worth",
        "evaluation-depth",
        "evaluation-depth-accuracy",
        "evaluation-depth-scale",
        "evaluation-exits-sequence",
        "evaluation-exits-token",
        "evaluation-speed",
        "evaluation-differences",
        "evaluation-pareto-flops",
        "evaluation-pareto-loops",
        "evaluation-pareto-time",
        "evaluation-matched",
    }
    for figure in section.figures:
        drawn = to_plotly(figure)
        lines = [trace for trace in drawn["data"] if trace["type"] == "scatter" and trace["x"] != [None]]
        bands = sum(bool(series.low) and not series.bars for series in figure.series)
        assert len(lines) == len(figure.series) + bands, figure.key
        assert "<svg" in sheet([figure], figure.title).svg[:1000]


def test_both_renderers_draw_the_same_error_bars() -> None:
    comparison = make_comparison(("a", "b", "c"))
    figure = forest(comparison, looks_for(comparison))
    series = named(figure, "not separated")
    (trace,) = [trace for trace in to_plotly(figure)["data"] if trace["name"] == "not separated"]
    assert trace["error_x"]["array"] == pytest.approx([0.02, 0.02])
    assert trace["error_x"]["arrayminus"] == pytest.approx([0.02, 0.02])
    (ax,) = draw([figure], "").axes
    segments = [
        tuple(segment[:, 0])
        for bars in ax.containers
        for collection in bars[2]
        for segment in collection.get_segments()
    ]
    assert all(
        any(ends == pytest.approx(segment) for segment in segments)
        for ends in zip(series.low, series.high, strict=True)
    )


def test_both_renderers_draw_every_cell() -> None:
    figure = glance(groups_of(make_evaluation("a"), make_evaluation("b", deepest=5)))
    assert figure.grid is not None
    heat = next(trace for trace in to_plotly(figure)["data"] if trace["type"] == "heatmap")
    assert heat["z"] == [list(row) for row in figure.grid.shades]
    cells = [shade for row in figure.grid.shades for shade in row if shade is not None]
    (ax,) = draw([figure], "").axes
    assert len(ax.patches) == len(cells) == 12 + 5
    assert {text.get_text() for text in ax.texts} >= {
        text for row in figure.grid.texts for text in row if text
    }


def test_a_legend_lists_every_rule_once_whatever_panel_it_is_in() -> None:
    exits = make_exits()
    gate = replace(exits.curves[0], rule="gate", needs=("gate",))
    groups = groups_of(
        make_evaluation("a", exits=exits), make_evaluation("b", exits=replace(exits, curves=(gate,)))
    )
    figure = trade_off(groups, "sequence")
    listed = [trace["name"] for trace in to_plotly(figure)["data"] if trace.get("showlegend")]
    assert sorted(listed) == sorted(set(listed))
    assert {"gate", "kl", "oracle (a bound)"} <= set(listed)
    (legend,) = draw([figure], "").legends
    assert sorted(text.get_text() for text in legend.get_texts()) == sorted(listed)


# Whatever is there


def test_texts_that_differ_are_said() -> None:
    assert section_of(make_evaluation("a"), make_evaluation("b")).warnings == ()
    (warning,) = section_of(make_evaluation("a"), make_evaluation("b", data="other")).warnings
    assert warning.endswith("validation split of stdlib, 121 windows of 128; other, 121 windows of 128.")


def test_nothing_gives_no_section_and_empty_parts_are_left_out() -> None:
    assert build_evaluation_section(EvaluationFiles((), None, ()), []) is None
    section = section_of(make_evaluation(exits=None))
    assert [part.key for part in section.parts] == ["depth"]
    section = section_of(make_evaluation(depth=()))
    assert section.worth is None
    assert [part.key for part in section.parts] == ["exits", "speed"]
    empty = Comparison((), (), (), (), (), ())
    assert section_of(comparison=empty).parts == ()


def test_what_is_not_finite_is_not_drawn() -> None:
    section = section_of(broken_evaluation(), broken_evaluation(seed=1), make_evaluation("fine"))
    for figure in section.figures:
        assert all(map(math.isfinite, (*figure.values("x"), *figure.values("y")))), figure.key
        to_plotly(figure)
        assert sheet([figure], figure.title).svg
    assert section.worth is not None
    assert section.worth.grid is not None
    assert section.worth.grid.rows == ("fine",)
    alone = section_of(broken_evaluation())
    assert alone.worth is None


def test_a_comparison_that_is_not_finite() -> None:
    nothing = replace(around(math.nan), low=math.nan, high=math.inf)
    made = make_comparison(("a", "b"))
    comparison = replace(
        made,
        differences=tuple(replace(entry, bits_per_byte=nothing, p=math.nan) for entry in made.differences),
        options=tuple(replace(entry, bits_per_byte=nothing) for entry in made.options),
        matched=tuple(replace(entry, bits_per_byte=nothing, against=nothing) for entry in made.matched),
    )
    section = section_of(comparison=comparison)
    assert section.figures == []
    assert [part.key for part in section.parts] == ["comparison", "matched"]


def test_endless_perplexity_is_a_cell_of_the_last_class() -> None:
    group = curve_of([4.0, math.inf, math.nan, 900.0])
    grid = glance([group]).grid
    assert grid is not None
    assert grid.shades == ((0, 3, 3, 3),)
    assert grid.texts[0][1:] == ("∞",) * 3


def test_a_single_loop_and_a_single_pair() -> None:
    one = Difference("a", "b", 1, around(-0.1, None), None, None, separated=False, seeds=1)
    comparison = replace(make_comparison(("a",)), differences=(one,), options=(), matched=())
    section = section_of(
        make_evaluation(deepest=1, trained=1, exits=make_exits(trained=1)), comparison=comparison
    )
    for figure in section.figures:
        to_plotly(figure)
        assert sheet([figure], figure.title).svg
    assert point(4.0, 1.0).left_at == (1.0, 0.0, 0.0, 0.0)
