"""What the figures and tables of an audit show is what its records hold."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopscope.audit.visibility import GROWN
from loopscope.report.audits import verdict_styles as words
from loopscope.report.audits.blind_corner import CEILING, FLOOR, blind_corner
from loopscope.report.audits.cards import card, remedy_table
from loopscope.report.audits.models import model_views
from loopscope.report.audits.norms import largest_tokens, visible_text
from loopscope.report.audits.section import AuditSection, build_audit_section
from loopscope.report.audits.visibility import visibility_table
from loopscope.report.plots.figure import Figure, Series
from loopscope.report.plots.label_places import DOT, LETTER, LINE, cloud_labels, place_labels
from loopscope.report.plots.to_plotly import to_plotly
from loopscope.results import REMOVED, SEEN, AuditedModel, LoopVerdict, LoopVisibility, Radial, Verdict
from tests.report.audits.fixtures import make_audit, make_report


def figures(*audits: AuditedModel) -> dict[str, Figure]:
    return {figure.key: figure for figure in build_audit_section(audits).figures}


def named(figure: Figure, name: str, panel: int = 0) -> Series:
    (found,) = [
        series
        for series in figure.series
        if series.name == name and series.panel == panel and not series.guide and not series.faint
    ]
    return found


def test_thresholds_are_those_of_the_verdict() -> None:
    assert {"thirty": 30.0}[words.GROWN_IN_WORDS] == GROWN
    assert set(words.STATUS_STYLES) == set(Verdict.__args__)
    assert len({look.symbol for look in words.STATUS_STYLES.values()}) == 4


def test_map_has_every_loop_where_its_record_says() -> None:
    figure = figures(make_audit(loops=4))["audit-blind-corner"]
    (path, cloud) = figure.series
    assert cloud.x == path.x == (0.5, 0.75, pytest.approx(5 / 6), 0.875)
    assert cloud.y == (1e-8,) * 4
    assert cloud.hollow == (False, False, False, True)  # the last loop is carried nowhere
    assert cloud.name == "blind: loops 1-4"
    corner = figure.areas[0]
    assert (corner.x, corner.y) == ((REMOVED, None), (None, SEEN))
    assert all(corner.x[0] <= x and y < corner.y[1] for x, y in zip(cloud.x, cloud.y, strict=True))


def test_map_keeps_nil_and_endless_values_on_it_and_says_what_is_missing() -> None:
    made = make_report().loops[0].__class__
    loops = (
        made(1, "blind", 0.0, 0.5, 0.0, 0.0),
        made(2, "visible", 1.0, -0.25, 1e40, 1.0),
        made(3, "blind", 0.0, math.nan, 0.0, 0.0),
        made(4, "blind", 0.0, 0.5, math.inf, 0.0),
    )
    figure = figures(make_audit(report=make_report("blind", loops=loops)))["audit-blind-corner"]
    blind, seen = (series for series in figure.series if series.points_only)
    assert (blind.x, blind.y) == ((0.5,), (FLOOR,))
    assert (seen.x, seen.y) == ((0.25,), (CEILING,))  # the verdict takes a carry by its size
    assert "because not finite: 2 loops" in figure.caption
    assert figure.y_ticks[0] == (FLOOR, "nil")


def test_map_draws_a_line_to_the_grown_exposure_where_that_decides() -> None:
    loops = tuple(LoopVerdict(k, "visible", 1e-9, 0.9, 1e-9, 2.0 if k == 1 else 1e-9) for k in (1, 2))
    figure = figures(make_audit(report=make_report("visible", loops=loops)))["audit-blind-corner"]
    assert [series.y for series in figure.series if "grown" in series.name] == [(1e-9, 2.0)]
    assert "thirty times as large" in figure.caption


def test_map_of_several_models_tells_them_by_color_and_verdicts_by_shape() -> None:
    figure = blind_corner(
        model_views([make_audit("a"), make_audit("b", "removed"), make_audit("c", "damped")])
    )
    clouds = [series for series in figure.series if series.points_only]
    assert [series.symbol for series in clouds] == ["diamond", "square", "triangle-down"]
    assert len({series.color for series in clouds}) == 3
    assert [series.name for series in figure.series if series.in_legend] == ["a", "b", "c"]


def test_drift_shows_scale_to_the_deepest_loop_and_the_recorded_fit() -> None:
    audited = make_audit()
    figure = figures(audited)["audit-drift"]
    measured, line = figure.series
    assert measured.x == tuple(map(float, range(1, 17)))
    assert measured.y == audited.report.expansion.rms
    assert line.name == "line: 2 per loop, r² 1"
    assert [y - 2 * x for x, y in zip(line.x, line.y, strict=True)] == pytest.approx([0.0] * len(line.x))
    assert [(mark.axis, mark.at, mark.text) for mark in figure.marks] == [("x", 4.0, "trained to loop 4")]
    shape = next(shape for shape in to_plotly(figure)["layout"]["shapes"] if shape["type"] == "line")
    assert shape["x0"] == shape["x1"] == 4


def test_turning_is_against_one_over_the_scale_before_it() -> None:
    audited = make_audit()
    series = figures(audited)["audit-turning"].series[0]
    assert series.x == pytest.approx([1 / s for s in audited.report.expansion.rms[:-1]])
    assert series.y == audited.report.expansion.angular_step


def test_lines_without_a_fit_have_none() -> None:
    made = make_report()
    report = replace(made, expansion=replace(made.expansion, growth=None, turning=None))
    found = figures(make_audit(report=report))
    assert [series.guide for series in found["audit-turning"].series] == [False]
    assert [series.guide for series in found["audit-drift"].series] == [False]


def test_interventions_show_what_was_measured() -> None:
    audited = make_audit()
    found = figures(audited)
    assert found["audit-final-sweep"].series[0].x == (0.1, 1.0, 10.0)
    assert found["audit-final-sweep"].series[0].y == (4.25, 4.0, 4.5)
    clamps = audited.report.radial_clamp
    assert named(found["audit-clamp"], "left alone").y == clamps["none"].cross_entropy
    assert named(found["audit-clamp"], "frozen at loop 1's scale").y == clamps["freeze_loop1"].cross_entropy
    assert named(found["audit-clamp"], "radial updates removed").y == clamps["remove_radial"].cross_entropy
    second = named(found["audit-rescaled"], "loop 2 doubled")
    assert (second.x, second.y) == ((2.0, 3.0, 4.0), (0.25, 0.25, 0.25))


def test_a_flat_line_is_not_magnified() -> None:
    sweep = {"0.1": 4.0, "1": 4.0 + 1e-7, "10": 4.0 - 1e-7}
    low, high = figures(make_audit(report=make_report(final_scale_sweep=sweep)))[
        "audit-final-sweep"
    ].y_range or (0, 0)
    assert high - low >= 0.1


def test_norms_and_dynamics_show_what_was_measured() -> None:
    found = figures(make_audit())
    assert named(found["audit-token-norms"], "median").y == (10.0, 20.0, 30.0, 40.0)
    assert named(found["audit-token-norms"], "99th percentile").y == (30.0, 60.0, 90.0, 120.0)
    assert named(found["audit-token-norms"], "largest").y == (40.0, 80.0, 120.0, 160.0)
    assert named(found["audit-norm-shares"], "largest 1% of tokens").y == pytest.approx([9.0] * 4)
    assert named(found["audit-norm-shares"], "largest 1% of channels").y == pytest.approx([40.0] * 4)
    radius = named(found["audit-dynamics"], "spectral radius")
    assert radius.y == pytest.approx([1.1, 1.05, 1 + 0.1 / 3, 1.025])
    assert radius.hollow == (False, True, False, False)  # the loop whose iteration had not settled
    assert named(found["audit-step-size"], "step size").y == pytest.approx([1 / k for k in range(1, 16)])
    assert named(found["audit-cosines"], "of the state and the next").y[0] == pytest.approx(0.9)
    assert len(named(found["audit-cosines"], "of an update and the next").y) == 14
    assert set(named(found["audit-increment"], "increment").y) == {2.0}


def test_several_models_are_overlaid_in_one_panel_for_each_quantity() -> None:
    found = figures(make_audit("a"), make_audit("b", "visible", loops=6))
    assert found["audit-token-norms"].panels == ("median", "99th percentile", "largest")
    for panel, values in enumerate(((10.0, 60.0), (30.0, 180.0), (40.0, 240.0))):
        assert named(found["audit-token-norms"], "b", panel).y[0] == values[0]
        assert named(found["audit-token-norms"], "b", panel).y[-1] == values[1]
    assert found["audit-rescaled"].panels == ("a", "b")
    assert [mark.at for mark in found["audit-drift"].marks] == [4.0, 6.0]
    del found["audit-rescaled"]  # its colours are those of loops
    assert all(len({s.color for s in figure.series if s.name == "a"}) == 1 for figure in found.values())


def test_no_figure_is_left_alone_in_half_a_row() -> None:
    for section in (
        build_audit_section([make_audit()]),
        build_audit_section([make_audit("a"), make_audit("b")]),
    ):
        for block in section.blocks:
            halves = "".join(" " if figure.wide else "h" for figure in block.figures).split()
            assert all(len(run) % 2 == 0 or len(run) == len(block.figures) == 3 for run in halves), block.key


def test_visibility_is_by_path_and_by_term() -> None:
    visibility = (
        LoopVisibility(1, {"cross_entropy@1/readout": Radial(-0.5, 0.5, 0.2), "entropy/gate": Radial(0.0, 0.0, 0.0)},
                       {"cross_entropy@1": Radial(1, 1, 0.5), "loss": Radial(3, 3, 0.1)}, 1.0, 0.0, 0.0),
        LoopVisibility(2, {"cross_entropy@2/readout": Radial(0.25, 0.25, 0.3), "norm_penalty/state": Radial(2, 2, 1)},
                       {"loss": Radial(2, 2, 0.1)}, 1.0, 1.0, 1.0),
    )  # fmt: skip
    table = visibility_table(
        model_views([make_audit(report=make_report("visible", 2, visibility=visibility))])[0]
    )
    direct, exposure, total, own = table.groups
    rows = {name: [cell.text for cell in cells] for name, cells in direct.rows}
    assert rows == {
        "cross entropy, through the readout": ["0.5", "0.25"],
        "entropy, through the gate": ["nil", ""],
        "norm penalty, reading the state": ["", "2"],
    }
    assert direct.rows[2][1][1].share == "100% radial"
    assert direct.rows[1][1][0].tint == 0 < direct.rows[0][1][1].tint < direct.rows[0][1][0].tint < 1
    assert [cell.text for cell in exposure.rows[0][1]] == ["1", "1"]
    assert [name for name, _ in total.rows] == ["the whole loss", "cross entropy of loop 1"]
    assert [cell.text for cell in total.rows[0][1]] == ["3", "2"]
    assert own.rows[-1][1][1].text == "1"


def test_deep_models_show_some_loops_and_group_the_strip() -> None:
    (model,) = model_views([make_audit(loops=30)])
    table = visibility_table(model)
    assert table.left_out
    assert (table.loops[0], table.loops[-1], len(table.loops)) == (1, 30, 8)
    cells = card(model).loops
    assert [cell.loops for cell in cells][:2] == ["loops 1-4", "loops 5-8"]
    assert len(cells) == 8
    assert cells[-1].last
    assert cells[0].carry == "50% to 88%"


def test_the_strip_never_joins_loops_of_different_status() -> None:
    loops = tuple(LoopVerdict(k, "visible" if k % 2 else "blind", 1.0, 0.5, 1.0, 1.0) for k in range(1, 21))
    cells = card(model_views([make_audit(report=make_report("blind", loops=loops))])[0]).loops
    assert [cell.status for cell in cells] == ["visible", "blind"] * 10


def test_remedies_of_several_models_share_a_table() -> None:
    table = remedy_table(
        model_views([make_audit("a"), make_audit("b", "visible"), make_audit("c", "damped")])
    )
    assert table is not None
    assert table.changes == ("add a norm penalty", "put a norm between loops")
    assert [row[0] for row in table.rows] == ["a", "c"]
    assert [cell.cost for cell in table.rows[0][2] if cell] == ["0", "+0.75"]
    assert remedy_table(model_views([make_audit("b", "visible")])) is None


def test_largest_tokens_have_text_place_and_size() -> None:
    table = largest_tokens(model_views([make_audit()])[0])
    assert table is not None
    assert [loop for loop, _ in table.loops] == [4, 3, 2, 1]
    first = table.loops[0][1][0]
    assert (first.text, first.sequence, first.position, first.norm, first.times) == (
        "↵",
        0,
        3,
        "160.0",
        "4 ×",
    )


@pytest.mark.parametrize(
    ("text", "shown_as"),
    [(" a", "␣a"), ("\t", "⇥"), ("", "(empty)"), ("\x00", "\\u0000"), ("\u202e", "\\u202e")],
)
def test_signs_that_do_not_show_are_made_visible(text: str, shown_as: str) -> None:
    assert visible_text(text) == shown_as


odd = st.floats(allow_nan=True, allow_infinity=True)
statuses = st.sampled_from(["blind", "visible", "damped", "removed"])


@given(st.lists(st.tuples(statuses, odd, odd, odd, odd), min_size=1, max_size=12))
def test_any_numbers_make_finite_figures(loops: list[tuple[Verdict, float, float, float, float]]) -> None:
    records = tuple(LoopVerdict(k, *values) for k, values in enumerate(loops, 1))
    section: AuditSection = build_audit_section(
        [make_audit(report=make_report("blind", len(loops), loops=records))]
    )
    for figure in section.figures:
        for series in figure.series:
            assert len(series.x) == len(series.y)
            assert all(map(math.isfinite, (*series.x, *series.y)))
            assert not figure.log_y or min(series.y) > 0
    assert all(0 <= cell.bar <= 100 for cell in section.cards[0].loops)


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 300)), min_size=1, max_size=20))
def test_every_loop_is_named_once_on_the_map(points: list[tuple[float, float]]) -> None:
    labels = cloud_labels(points, range(1, len(points) + 1))
    numbers = [
        number
        for label in labels
        for part in label.split(", ")
        if part
        for number in range(int(part.split("-")[0]), int(part.split("-")[-1]) + 1)
    ]
    assert sorted(numbers) == list(range(1, len(points) + 1))


def test_labels_cover_neither_points_nor_each_other_where_there_is_room() -> None:
    points = [(500.0, 150.0), (520.0, 150.0), (540.0, 152.0), (530.0, 170.0)]
    labels = ["1", "2", "3", "4"]
    places = place_labels(points, labels, 1000, 300)

    def box(index: int) -> tuple[float, float, float, float]:
        up, side = places[index].split()
        x, y = points[index]
        x += {"left": -1, "center": 0, "right": 1}[side] * (LETTER / 2 + DOT / 2)
        y += {"bottom": -1, "middle": 0, "top": 1}[up] * (LINE / 2 + DOT / 4)
        return (x - LETTER / 2, y - LINE / 2, x + LETTER / 2, y + LINE / 2)

    boxes = [box(index) for index in range(4)]
    for first in range(4):
        for second in range(first):
            a, b = boxes[first], boxes[second]
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (first, second, places)
