"""What the figures and tables of depth and exits show is what their records hold."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopscope.report.evaluations.calibrated import calibration_table
from loopscope.report.evaluations.depth import accuracy, exact_match, quality, state_norm
from loopscope.report.evaluations.depth_grid import BANDS, glance
from loopscope.report.evaluations.exits import trade_off
from loopscope.report.evaluations.speed import speed_table, speed_up
from loopscope.report.evaluations.verdicts import as_good, curve_sentence, depth_headline, verdict_table
from tests.report.evaluations.fixtures import (
    broken_evaluation,
    curve_of,
    groups_of,
    make_comparison,
    make_curve,
    make_evaluation,
    make_exits,
    named,
    point,
)

CLASSES = (*BANDS, math.inf)


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


def test_rows_are_in_the_page_s_order_and_say_the_verdict() -> None:
    evaluations = [make_evaluation("worse", level=5.0), make_evaluation("better", level=3.0)]
    comparison = make_comparison(("worse", "better"))
    figure = glance(groups_of(*evaluations, comparison=comparison))
    assert figure.grid is not None
    assert figure.grid.rows == ("worse", "better")
    assert [end.split(" · ")[1] for end in figure.grid.ends] == ["hurts", "holds"]
    assert figure.grid.ends[1].startswith(f"{3.0 / math.log(2) / 3:.3g}")
    assert [(mark.at, mark.between) for mark in figure.marks] == [(4.5, (-0.5, 0.5)), (4.5, (-1.5, -0.5))]


def test_exits_as_trained_have_a_row_of_their_own() -> None:
    other = make_curve(reading="as trained", early=0.1, level=3.9)
    figure = glance(groups_of(make_evaluation("f", depth=(make_curve(), other))))
    assert figure.grid is not None
    assert figure.grid.rows == ("f", "f (exits)")
    assert figure.grid.texts[1][0] == f"+{100 * math.expm1(0.1 * 9 / 16):.1f}%"
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
    half = 4.302653 * math.sqrt(sum((value - mean) ** 2 for value in first) / 2) / math.sqrt(3)
    assert line.x == tuple(map(float, range(1, 13)))
    assert (line.y[0], line.low[0], line.high[0]) == pytest.approx((mean, mean - half, mean + half))


def test_one_seed_has_no_band_and_the_page_says_so() -> None:
    figure = quality(groups_of(make_evaluation()))
    assert named(figure, "made/up").low == ()
    assert "Fewer than three seeds: no bands." in figure.caption
    assert [(mark.axis, mark.at) for mark in figure.marks] == [("x", 4.0)]


def test_wide_bands_of_few_seeds_do_not_squeeze_the_lines() -> None:
    models = [make_evaluation("a", seed, level=4.0 + 0.2 * seed) for seed in range(3)]
    figure = quality(groups_of(*models))
    line = named(figure, "a")
    assert figure.y_range is not None
    low, high = figure.y_range
    span = max(line.y) - min(line.y)
    assert min(line.low) < low < min(line.y)
    assert max(line.y) < high < max(line.high)
    assert high - low < 2 * span
    assert "cut" in figure.caption
    near = [make_evaluation("a", seed, level=4.0 / (1 + 0.01 * seed) + 1e-4 * seed) for seed in range(3)]
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
    assert named(state_norm(plain), "text").y == tuple(entry.l2_norm for entry in entries)
    assert named(accuracy(plain), "text").y == pytest.approx([100 * entry.accuracy for entry in entries])
    assert exact_match(plain).empty
    assert named(exact_match(task), "task").y[:4] == (25.0, 50.0, 75.0, 100.0)


def test_verdicts_are_those_of_the_comparison() -> None:
    comparison = make_comparison(("a", "b"))
    groups = groups_of(make_evaluation("a"), make_evaluation("b"), comparison=comparison)
    table = verdict_table(groups)
    assert table is not None
    assert [(row[0].text, row[1].badge) for row in table.rows] == [("a", "hurts"), ("b", "holds")]
    assert (table.rows[0][-1].text, table.rows[0][-1].interval) == ("+0.100", "+0.0800 to +0.120")
    assert depth_headline(groups) == "More loops than trained neither help nor hurt b; hurt a."


def test_without_a_comparison_the_curve_is_put_in_words() -> None:
    groups = groups_of(make_evaluation("a", slope=0.1))
    assert verdict_table(groups) is None
    assert depth_headline(groups).startswith("Loop 4 is worth running")
    said = curve_sentence(groups[0])
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


def test_a_panel_of_fewer_seeds_and_a_condition_without_exits_are_named() -> None:
    both = [make_evaluation("a", seed, exits=make_exits()) for seed in range(2)]
    groups = groups_of(
        *both, make_evaluation("b", exits=make_exits()), replace(make_evaluation("c"), exits=None)
    )
    caption = trade_off(groups, "token").caption
    assert "Means over seeds (a: 2, b: 1)." in caption
    assert "Exits of c were not measured." in caption
    whole = trade_off(groups_of(*both), "token").caption
    assert "Means over seeds." in whole
    assert "not measured" not in whole


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
    models = [make_evaluation("a", seed) for seed in range(3)]
    table = calibration_table(groups_of(*models))
    assert table is not None
    rows = {(row[1].text, row[2].text): row for row in table.rows}
    assert len(rows) == len(table.rows) == 6
    assert [cell.text for cell in rows["logit-margin", "sequence"][3:]] == [
        "+1.0 % perplexity",
        "2.40 of 4",
        "+0.8 %",
        "3 of 3",
    ]
    assert rows["hidden-step", "token"][-1].text == "0 of 3"


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
    assert texts[5:10] == ["2.00", "1.50 ×", "1.60 ×", "2.00 ×", "94 %"]
    assert table.rows[0][6].interval == "1.50 to 1.53"


def test_speed_that_was_not_counted_has_its_ideal_only() -> None:
    exits = make_exits()
    speeds = tuple(replace(speed, allowed=None) for speed in exits.speeds[:1])
    figure = speed_up(groups_of(make_evaluation(exits=replace(exits, speeds=speeds))))
    (cloud,) = [series for series in figure.series if series.points_only]
    assert (cloud.x, cloud.y, cloud.hollow, cloud.in_legend) == ((2.0,), (1.5,), (True,), True)
