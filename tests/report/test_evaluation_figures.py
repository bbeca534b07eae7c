"""What the figures and tables of depth, exits and comparisons show is what their records hold."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_evaluations import (
    around,
    broken_evaluation,
    make_comparison,
    make_curve,
    make_evaluation,
    make_exits,
    point,
)

from loopscope.report.evaluations.calibrated import calibration_table
from loopscope.report.evaluations.depth import accuracy, exact_match, quality, scale
from loopscope.report.evaluations.differences import difference_table, forest
from loopscope.report.evaluations.exits import trade_off
from loopscope.report.evaluations.found import FoundEvaluations
from loopscope.report.evaluations.glance import WITHIN, glance
from loopscope.report.evaluations.matched import matched_figure, matched_table
from loopscope.report.evaluations.pareto import against_loops, against_time
from loopscope.report.evaluations.section import EvaluationSection, build_section
from loopscope.report.evaluations.shown import Group, grouped
from loopscope.report.evaluations.speed import speed_table, speed_up
from loopscope.report.evaluations.verdicts import as_good, depth_headline, shown_by, verdict_table
from loopscope.report.figures import Figure, Series
from loopscope.report.interactive import to_plotly
from loopscope.report.static import draw, svg
from loopscope.results import Comparison, DepthCurve, Difference, ModelEvaluation

CLASSES = (*WITHIN, math.inf)


def groups_of(*evaluations: ModelEvaluation, comparison: Comparison | None = None) -> list[Group]:
    return grouped(evaluations, [], comparison)


def section_of(*evaluations: ModelEvaluation, comparison: Comparison | None = None) -> EvaluationSection:
    section = build_section(FoundEvaluations(evaluations, comparison, ()), [])
    assert section is not None
    return section


def whole() -> EvaluationSection:
    models = [make_evaluation(name, seed) for name in ("a", "b") for seed in range(3)]
    return section_of(*models, comparison=make_comparison(("a", "b")))


def named(figure: Figure, name: str, panel: int = 0) -> Series:
    (found,) = [s for s in figure.series if s.name == name and s.panel == panel and not s.guide]
    return found


def curve_of(losses: Sequence[float], trained: int = 1) -> Group:
    entries = tuple(
        replace(entry, loss=loss)
        for entry, loss in zip(make_curve(len(losses)).per_loop, losses, strict=True)
    )
    return groups_of(make_evaluation(depth=(DepthCurve("at depth", entries, ()),), trained=trained))[0]


# Which depth is worth running


def test_cells_are_shaded_by_their_distance_to_the_best_loop() -> None:
    group = curve_of([4.0 + math.log(ratio) for ratio in (1.5, 1.06, 1.04, 1.0, 1.009)])
    grid = glance([group]).grid
    assert grid is not None
    assert grid.shades == ((3, 2, 1, 0, 0),)
    assert grid.texts == (("+50%", "+6.0%", "+4.0%", "best", "+0.9%"),)


@given(st.lists(st.floats(0.1, 9.0), min_size=1, max_size=9))
def test_every_cell_is_of_the_class_of_its_perplexity(losses: list[float]) -> None:
    grid = glance([curve_of(losses)]).grid
    assert grid is not None
    for loss, shade in zip(losses, grid.shades[0], strict=True):
        assert shade is not None
        excess = math.expm1(loss - min(losses))
        assert excess <= CLASSES[shade]
        assert shade == 0 or excess > CLASSES[shade - 1]


def test_rows_are_ordered_by_quality_and_say_the_verdict() -> None:
    evaluations = [make_evaluation("worse", level=5.0), make_evaluation("better", level=3.0)]
    comparison = make_comparison(("worse", "better"))
    figure = glance(groups_of(*evaluations, comparison=comparison))
    assert figure.grid is not None
    assert figure.grid.rows == ("better", "worse")
    assert [end.split(" · ")[1] for end in figure.grid.ends] == ["holds", "hurts"]
    assert figure.grid.ends[0].startswith(f"{3.0 / math.log(2) / 3:.3g}")
    assert [(mark.at, mark.between) for mark in figure.marks] == [(4.5, (-0.5, 0.5)), (4.5, (-1.5, -0.5))]


def test_exits_as_trained_have_a_row_of_their_own() -> None:
    other = make_curve(reading="as trained", early=0.1, level=3.9)
    figure = glance(groups_of(make_evaluation("f", depth=(make_curve(), other))))
    assert figure.grid is not None
    assert figure.grid.rows == ("f (exits)", "f")
    assert figure.grid.texts[0][0] == f"+{100 * math.expm1(0.1 * 9 / 16):.1f}%"
    assert "Rows with (exits)" in figure.caption
    assert len(figure.marks) == 2


def test_depths_that_were_not_run_are_no_cells() -> None:
    figure = glance(groups_of(make_evaluation("deep", deepest=8), make_evaluation("short", deepest=5)))
    assert figure.grid is not None
    by_name = dict(zip(figure.grid.rows, figure.grid.shades, strict=True))
    assert by_name["short"][5:] == (None,) * 3
    assert None not in by_name["deep"]


@given(st.lists(st.floats(0.1, 3.0), min_size=1, max_size=9))
def test_loops_as_good_are_a_stretch_around_the_best(losses: list[float]) -> None:
    good = as_good(curve_of(losses))
    best = losses.index(min(losses)) + 1
    most = min(losses) + math.log(1.01)
    assert best in good
    assert all(later == earlier + 1 for earlier, later in pairwise(good))
    assert all(losses[loop - 1] <= most for loop in good)
    for outside in (good[0] - 1, good[-1] + 1):
        assert not 1 <= outside <= len(losses) or losses[outside - 1] > most


# Depth curves


def test_curves_are_means_over_seeds_with_students_band() -> None:
    models = [make_evaluation("a", seed) for seed in range(3)]
    line = named(quality(groups_of(*models)), "a")
    first = [model.depth[0].per_loop[0].bits_per_byte for model in models]
    mean = sum(first) / 3
    half = 4.303 * math.sqrt(sum((value - mean) ** 2 for value in first) / 2) / math.sqrt(3)
    assert line.x == tuple(map(float, range(1, 13)))
    assert (line.y[0], line.low[0], line.high[0]) == pytest.approx((mean, mean - half, mean + half))


def test_one_seed_has_no_band_and_the_page_says_so() -> None:
    figure = quality(groups_of(make_evaluation()))
    assert named(figure, "made/up").low == ()
    assert "One seed each: no bands." in figure.caption
    assert [(mark.axis, mark.at) for mark in figure.marks] == [("x", 4.0)]


def test_wide_bands_of_few_seeds_do_not_squeeze_the_lines() -> None:
    models = [make_evaluation("a", seed, level=4.0 + 0.2 * seed) for seed in range(2)]
    figure = quality(groups_of(*models))
    line = named(figure, "a")
    assert figure.y_range is not None
    low, high = figure.y_range
    span = max(line.y) - min(line.y)
    assert min(line.low) < low < min(line.y)
    assert max(line.y) < high < max(line.high)
    assert high - low < 2 * span
    assert "cut" in figure.caption
    near = [make_evaluation("a", seed, level=4.0 / (1 + 0.01 * seed) + 1e-4 * seed) for seed in range(2)]
    assert "cut" not in quality(groups_of(*near)).caption


def test_the_second_reading_is_dashed_up_to_the_trained_depth() -> None:
    other = make_curve(reading="as trained", early=0.1)
    figure = quality(groups_of(make_evaluation("f", depth=(make_curve(), other))))
    second = named(figure, "f, exits as trained")
    assert (second.dash, second.x) == ("dash", (1.0, 2.0, 3.0, 4.0))
    assert second.y == tuple(entry.bits_per_byte for entry in other.per_loop[:4])
    assert named(figure, "f").y == tuple(entry.bits_per_byte for entry in make_curve().per_loop)
    assert "Dashed" in figure.caption


def test_scale_accuracy_and_tasks_at_every_depth() -> None:
    plain, task = groups_of(make_evaluation("text")), groups_of(make_evaluation("task", exact=True))
    entries = plain[0].models[0].depth[0].per_loop
    assert named(scale(plain), "text").y == tuple(entry.l2_norm for entry in entries)
    assert named(accuracy(plain), "text").y == pytest.approx([100 * entry.accuracy for entry in entries])
    assert exact_match(plain).empty
    assert named(exact_match(task), "task").y[:4] == (25.0, 50.0, 75.0, 100.0)


def test_verdicts_are_those_of_the_comparison() -> None:
    comparison = make_comparison(("a", "b"))
    groups = groups_of(make_evaluation("a"), make_evaluation("b"), comparison=comparison)
    table = verdict_table(groups)
    assert table is not None
    assert [(row[0].text, row[1].badge) for row in table.rows] == [("a", "hurts"), ("b", "holds")]
    assert (table.rows[0][-1].text, table.rows[0][-1].interval) == ("+0.1", "+0.08 to +0.12")
    assert depth_headline(groups) == "More loops than trained neither help nor hurt b; hurt a."


def test_without_a_comparison_the_curve_is_put_in_words() -> None:
    groups = groups_of(make_evaluation("a", slope=0.1))
    assert verdict_table(groups) is None
    assert depth_headline(groups).startswith("Loop 4 is worth running")
    said = shown_by(groups[0])
    assert said.startswith("Best at loop 4 (1.92 bits per byte); loop 4 within 1 %")
    assert f"to loop 12: +{0.8 / math.log(2) / 3:.3g} bits per byte" in said
    assert said.endswith("One seed: no interval.")


# Exits


def test_trade_offs_are_perplexity_over_full_depth() -> None:
    exits = make_exits()
    (group,) = groups_of(make_evaluation("a", exits=exits))
    figure = trade_off([group], "sequence")
    full = exits.fixed[-1].perplexity
    (curve,) = [c for c in exits.curves if c.rule == "kl" and c.unit == "sequence"]
    line = named(figure, "kl")
    assert line.x == tuple(p.mean_loops for p in curve.points)
    assert line.y == pytest.approx([100 * (p.perplexity / full - 1) for p in curve.points])
    fixed = named(figure, "fixed depth")
    assert (fixed.labels, fixed.symbol) == (("1", "2", "3", "4"), "square")
    assert fixed.y == pytest.approx([100 * (p.perplexity / full - 1) for p in exits.fixed])
    assert [mark.at for mark in figure.marks] == pytest.approx([1.0])


def test_an_oracle_is_a_dashed_bound_and_rules_without_logits_are_dotted() -> None:
    figure = trade_off(groups_of(make_evaluation()), "token")
    dashes = {series.name: series.dash for series in figure.series if not series.points_only}
    assert dashes == {
        "logit-margin": "solid",
        "kl": "solid",
        "hidden-step": "dot",
        "oracle (a bound)": "dash",
    }


def test_calibrated_points_are_of_the_test_part_and_hollow_where_the_target_failed() -> None:
    exits = make_exits()
    figure = trade_off(groups_of(make_evaluation(exits=exits)), "sequence")
    clouds = [series for series in figure.series if series.symbol == "diamond"]
    made = [c for c in exits.calibrations if c.unit == "sequence"]
    assert [cloud.x for cloud in clouds] == [(c.tested_on.mean_loops,) for c in made if c.tested_on]
    assert [cloud.hollow for cloud in clouds] == [(not c.held,) for c in made]
    assert len([cloud for cloud in clouds if cloud.in_legend]) == 1
    assert "chosen on 60 windows, tested on 61" in clouds[0].notes[0]


def test_every_rule_is_seen_and_only_a_bound_may_lie_below() -> None:
    exits = make_exits()
    deep = [point(level, 2.0) for level in (3.7, 3.0)]
    curves = (replace(exits.curves[0], points=(deep[0],)), replace(exits.curves[3], points=(deep[1],)))
    figure = trade_off(
        groups_of(make_evaluation(exits=replace(exits, curves=curves, calibrations=()))), "sequence"
    )
    assert figure.y_range is not None
    bound = named(figure, "oracle (a bound)").y[0]
    assert bound < figure.y_range[0] < named(figure, "logit-margin").y[0]
    assert "Cut at" in figure.caption


def test_sequences_and_tokens_are_apart_and_every_condition_has_a_panel() -> None:
    exits = make_exits()
    only = replace(exits, curves=tuple(c for c in exits.curves if c.unit == "token"), calibrations=())
    groups = groups_of(make_evaluation("a", exits=exits), make_evaluation("b", exits=only))
    assert trade_off(groups, "token").panels == ("a", "b")
    assert trade_off(groups, "sequence").panels == ("",)


def test_settings_are_averaged_over_seeds() -> None:
    low, high = make_exits(extra=0.0), make_exits(extra=0.02)
    figure = trade_off(
        groups_of(make_evaluation("a", 0, exits=low), make_evaluation("a", 1, exits=high)), "token"
    )
    expected = [
        sum(100 * math.expm1(curve.points[0].loss - e.fixed[-1].loss) for e in (low, high) for curve in e.curves
            if curve.rule == "kl" and curve.unit == "token") / 2
    ]  # fmt: skip
    assert named(figure, "kl").y[0] == pytest.approx(expected[0])


def test_calibrations_in_the_table() -> None:
    models = [make_evaluation("a", seed) for seed in range(2)]
    table = calibration_table(groups_of(*models))
    assert table is not None
    rows = {(row[1].text, row[2].text): row for row in table.rows}
    assert len(rows) == len(table.rows) == 6
    assert [cell.text for cell in rows["logit-margin", "sequence"][3:]] == [
        "+1.0 % perplexity",
        "2.4 of 4",
        "+0.8 %",
        "2 of 2",
    ]
    assert rows["hidden-step", "token"][-1].text == "0 of 2"


def test_a_target_that_cannot_be_met_is_said() -> None:
    table = calibration_table(groups_of(broken_evaluation()))
    assert table is not None
    assert (table.rows[0][-1].text, table.rows[0][-1].interval) == ("no", "1 not to be met")


def test_speed_ups_are_where_the_record_says() -> None:
    groups = groups_of(make_evaluation())
    figure = speed_up(groups)
    filled = [s for s in figure.series if s.points_only and not s.hollow]
    hollow = [s for s in figure.series if s.hollow]
    assert [(s.name, s.x, s.y) for s in filled] == [
        ("logit-margin", (1.6,), (1.5,)),
        ("hidden-step", (1.9,), (1.8,)),
    ]
    assert [s.x for s in hollow] == [(2.0,), (2.0,)]
    diagonal = figure.series[0]
    assert diagonal.x == diagonal.y
    table = speed_table(groups)
    assert table is not None
    texts = [cell.text for cell in table.rows[0]]
    assert texts[5:10] == ["2", "1.5 ×", "1.6 ×", "2 ×", "94 %"]
    assert table.rows[0][6].interval == "1.5 to 1.53"


def test_speed_that_was_not_counted_has_its_ideal_only() -> None:
    exits = make_exits()
    speeds = tuple(replace(speed, allowed=None) for speed in exits.speeds[:1])
    figure = speed_up(groups_of(make_evaluation(exits=replace(exits, speeds=speeds))))
    (cloud,) = [series for series in figure.series if series.points_only]
    assert (cloud.x, cloud.y, cloud.hollow, cloud.in_legend) == ((2.0,), (1.5,), (True,), True)


# Comparisons


def test_the_forest_has_differences_with_intervals_at_the_trained_depth() -> None:
    comparison = make_comparison(("a", "b", "c"))
    figure = forest(comparison)
    apart, close = named(figure, "the first is worse"), named(figure, "not separated")
    assert (apart.x, apart.low, apart.high) == ((0.03,), (pytest.approx(0.01),), (pytest.approx(0.05),))
    assert close.hollow == (True, True)
    names = dict(figure.y_ticks)
    assert [names[y] for y in (*close.y, *apart.y)] == ["b − a", "c − b", "c − a"]
    assert figure.title == "Conditions compared at loop 4"
    assert [(mark.axis, mark.at) for mark in figure.marks] == [("x", 0.0)]
    table = difference_table(comparison)
    assert table is not None
    assert [cell.text for cell in table.rows[1]][2:6] == ["+0.03", "0.005", "0.03", "separated"]


def test_too_few_seeds_give_no_interval_and_that_is_said() -> None:
    figure = forest(make_comparison(("a", "b"), half=None))
    (cloud,) = figure.series
    assert cloud.low == ()
    assert cloud.name == "not separated"
    assert "Too few seeds for intervals" in figure.caption


def test_of_many_pairs_those_with_the_best_are_drawn() -> None:
    names = [f"c{n:02}" for n in range(12)]
    figure = forest(make_comparison(names))
    assert len(figure.y_ticks) == 11
    assert all(name.endswith("− c00") for _, name in figure.y_ticks)
    assert "11 of 66 pairs" in figure.caption


def test_the_front_is_what_the_record_marks() -> None:
    comparison = make_comparison(("a", "b", "c"))
    groups = groups_of(make_evaluation("a"), make_evaluation("b"))
    loops, time = against_loops(comparison, groups), against_time(comparison, groups)
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
    figure = against_time(replace(made, options=(*made.options[:-1], last)), [])
    assert figure.key == "evaluation-pareto-flops"
    assert named(figure, "b").x == tuple(2e6 * k for k in range(1, 7))
    uncounted = replace(made.options[0], seconds_per_token=None, flops_per_token=None)
    figure = against_time(replace(made, options=(uncounted, *made.options[1:])), [])
    assert len(named(figure, "a").x) == 5
    assert "not drawn: 1" in figure.caption


def test_unlooped_models_have_no_place_on_the_axis_of_loops() -> None:
    made = make_comparison(("a", "b"))
    unlooped = replace(made.options[0], condition="unlooped", loops=1)
    comparison = replace(made, options=(*made.options, unlooped))
    assert "unlooped" not in {series.name for series in against_loops(comparison, []).series}
    assert "unlooped" in {series.name for series in against_time(comparison, []).series}


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
    figure, table = matched_figure(comparison), matched_table(comparison)
    assert [series.name for series in figure.series] == ["looped", "same parameters", "same FLOPs"]
    assert [series.x for series in figure.series] == [(1.9,), (2.0,), (1.89,)]
    assert figure.series[0].low == (pytest.approx(1.88),)
    assert table is not None
    assert [row[-1].text for row in table.rows] == ["", "looping is better", "not separated"]
    worse = replace(comparison.matched[1], against=around(-0.2))
    table = matched_table(replace(comparison, matched=(worse,)))
    assert table is not None
    assert table.rows[0][-1].text == "looping is worse"


# Both renderers


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
        "evaluation-pareto-loops",
        "evaluation-pareto-time",
        "evaluation-matched",
    }
    for figure in section.figures:
        drawn = to_plotly(figure)
        lines = [trace for trace in drawn["data"] if trace["type"] == "scatter" and trace["x"] != [None]]
        bands = sum(bool(series.low) and not series.bars for series in figure.series)
        assert len(lines) == len(figure.series) + bands, figure.key
        assert "<svg" in svg(figure)[:1000]


def test_both_renderers_draw_the_same_error_bars() -> None:
    figure = forest(make_comparison(("a", "b", "c")))
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
    assert build_section(FoundEvaluations((), None, ()), []) is None
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
        svg(figure)
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
        svg(figure)
    assert point(4.0, 1.0).left_at == (1.0, 0.0, 0.0, 0.0)
