"""The page: one file, offline, escaped, drawn."""

import base64
import gzip
import re
from pathlib import Path
from typing import Any

import plotly.graph_objects
import pytest

from loopscope.report.audits.section import build_audit_section
from loopscope.report.found import find_audits
from loopscope.report.page import write_report
from loopscope.report.plots.to_plotly import to_plotly
from loopscope.report.study.conditions import group_runs
from loopscope.report.study.figures import build_figures
from loopscope.results import StudyResults, audit_values, to_json
from tests.report.audits.fixtures import make_audit
from tests.report.evaluations.fixtures import make_comparison, make_evaluation, section_of
from tests.report.fixtures import (
    EVIL,
    assert_nothing_breaks_out,
    assert_offline,
    figure_data,
)


def write(folder: Path, study: StudyResults) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(to_json(study))
    page = write_report(folder)
    assert page == folder / "report.html"
    assert page.stat().st_size < 3_000_000
    return page.read_text()


@pytest.mark.smoke
def test_one_self_contained_file_with_figures_beside_it(
    tmp_path: Path, run_maker: Any, study_maker: Any
) -> None:
    runs = [
        run_maker(name, seed, scale=scale) for name, scale in (("a", 1.0), ("b", 90.0)) for seed in range(3)
    ]
    text = write(tmp_path, study_maker(*runs))
    assert_offline(text)
    assert re.search(r"<small>[\d.,]+ to [\d.,]+</small>", text)
    keys = set(re.findall(r'data-figure="([^"]+)"', text))
    assert keys == {
        "scale-last-loop",
        "scale-per-loop",
        "scale-by-loop",
        "perplexity-by-loop",
        "exits-against-scale",
        "learning",
    }
    for key in {*keys, "hero"}:
        assert (tmp_path / "figures" / f"{key}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (tmp_path / "figures" / f"{key}.svg").read_text()[:2000]


@pytest.mark.usefixtures("undrawn")
def test_plotly_is_inside_whole(tmp_path: Path, run_maker: Any, study_maker: Any) -> None:
    text = write(tmp_path, study_maker(run_maker()))
    packed = re.search(r'id="plotly-gz">([^<]+)</script>', text)
    assert packed is not None
    assert b"plotly.js v" in gzip.decompress(base64.b64decode(packed[1]))[:200]
    assert "scale-by-loop" in figure_data(text)


@pytest.mark.usefixtures("page_only")
def test_untrusted_text_cannot_break_out(
    tmp_path: Path, run_maker: Any, failed_maker: Any, study_maker: Any
) -> None:
    failure = failed_maker(EVIL).failure.__class__(message=EVIL, last_checkpoint=EVIL)
    study = study_maker(
        run_maker(EVIL, config={EVIL: EVIL}),
        run_maker("other", scale=1.0),
        failed_maker(EVIL).__class__(**{**vars(failed_maker(EVIL)), "failure": failure}),
    )
    text = write(tmp_path, study)
    assert_nothing_breaks_out(text)


@pytest.mark.usefixtures("page_only")
@pytest.mark.parametrize("kind", ["none", "only failed", "one loop", "mixed depths", "many", "not finite"])
def test_any_study_gives_a_page(
    tmp_path: Path, run_maker: Any, failed_maker: Any, study_maker: Any, kind: str
) -> None:
    one = run_maker()
    endless = one.per_loop[0].__class__(1, float("nan"), float("inf"), float("nan"), 1e30, 1e29)
    studies = {
        "none": [],
        "only failed": [failed_maker(), failed_maker(seed=1)],
        "one loop": [run_maker(loops=1)],
        "mixed depths": [run_maker("a", loops=2), run_maker("b", loops=7)],
        "many": [
            run_maker(f"condition/{'long-' * 12}{n}", seed, scale=1.0 + n)
            for n in range(30)
            for seed in range(5)
        ],
        "not finite": [run_maker("a", per_loop=(endless, *one.per_loop[1:])), run_maker("b")],
    }
    text = write(tmp_path, study_maker(*studies[kind]))
    assert "<h1>" in text


def test_a_single_run_folder_and_another_place(tmp_path: Path, run_maker: Any) -> None:
    (tmp_path / "result.json").write_text(to_json(run_maker("alone")))
    page = write_report(tmp_path, tmp_path / "pages" / "page.html")
    assert "alone" in page.read_text()
    assert (page.parent / "figures" / "hero.png").exists()
    with pytest.raises(ValueError, match="a folder; name a file"):
        write_report(tmp_path, tmp_path / "pages")


def test_figures_say_what_they_were_given(run_maker: Any) -> None:
    figures = {
        f.key: f
        for f in build_figures(group_runs([*(run_maker("a", seed) for seed in range(3)), run_maker("b", 0)]))
    }
    curve = figures["scale-by-loop"].series[0]
    assert curve.x == (1.0, 2.0, 3.0, 4.0)
    assert curve.y[3] == pytest.approx(10 * 4 * (1.05 * 1.1) ** (1 / 3))
    assert curve.low[3] < curve.y[3] < curve.high[3]
    assert figures["scale-by-loop"].series[1].low == ()  # one seed: no band
    assert {series.name for series in figures["exits-against-scale"].series} == {"a", "b"}
    assert figures["exits-against-scale"].areas
    drawn = to_plotly(figures["scale-last-loop"])
    assert drawn["layout"]["yaxis"]["type"] == "log"
    assert len(drawn["data"]) == 2


def test_audits_beside_the_runs_become_a_section(tmp_path: Path, run_maker: Any, study_maker: Any) -> None:
    study = study_maker(run_maker("a/b", 0), run_maker("a/b", 1))
    before = write(tmp_path, study)
    assert not any(key.startswith("audit-") for key in figure_data(before))
    assert 'class="card' not in before
    for seed in (0, 1):
        folder = tmp_path / "a_b" / f"seed-{seed}"
        folder.mkdir(parents=True)
        (folder / "audit.json").write_text(to_json(audit_values(make_audit("a/b"))))
    text = write(tmp_path, study)
    assert re.findall(r'class="model" title="([^"]+)"', text) == [
        "a/b, seed 0",
        "a/b, seed 1",
    ]
    assert {"audit-drift", "scale-by-loop"} <= set(figure_data(text))
    assert (tmp_path / "figures" / "audit-drift.png").exists()
    assert_offline(text)


@pytest.mark.usefixtures("undrawn")
def test_an_audit_of_a_run_folder_and_one_that_cannot_be_read(tmp_path: Path, run_maker: Any) -> None:
    (tmp_path / "result.json").write_text(to_json(run_maker("alone")))
    (tmp_path / "audit.json").write_text(to_json(audit_values(make_audit("alone", "visible"))))
    assert "The loss sees the scale of alone at every loop" in write_report(tmp_path).read_text()
    (tmp_path / "audit.json").write_text('{"schema": 0')
    text = write_report(tmp_path).read_text()
    assert "Not shown: audit.json" in text
    assert 'class="card' not in text


def test_first_seeds_come_first(tmp_path: Path) -> None:
    for place in ("b/seed-0", "a/seed-10", "a/seed-2", "a/seed-x", "a/seed-0"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "audit.json").write_text(to_json(audit_values(make_audit(place))))
    names = [audited.name for audited in find_audits(tmp_path).audits]
    assert names == ["a/seed-0", "b/seed-0", "a/seed-2", "a/seed-10", "a/seed-x"]


def test_intervals_have_no_points_of_their_own(run_maker: Any) -> None:
    drawn = to_plotly(
        next(
            f
            for f in build_figures(group_runs([run_maker("a", seed) for seed in range(3)]))
            if f.key == "scale-by-loop"
        )
    )
    assert [trace["mode"] for trace in drawn["data"]] == ["lines", "lines+markers"]


def test_plotly_knows_every_property_that_a_page_hands_it(run_maker: Any) -> None:
    """The page's figures are plain values; plotly's own classes refuse what they do not know."""
    figures = build_figures(group_runs([run_maker(name, seed) for name in "ab" for seed in range(3)]))
    section = build_audit_section([make_audit("a"), make_audit("b", "visible")])
    evaluation = section_of(
        make_evaluation("a"), make_evaluation("b"), comparison=make_comparison(("a", "b"))
    )
    for figure in (*figures, *section.figures, *evaluation.figures):
        plotly.graph_objects.Figure(to_plotly(figure))


def test_axes_have_no_letters_for_thousands(run_maker: Any) -> None:
    entries = tuple(
        entry.__class__(entry.loop, 50.0, 1e24 / entry.loop**30, 7.0, 1e5, 1e4)
        for entry in run_maker().per_loop
    )
    figures = build_figures(group_runs([run_maker("a", per_loop=entries), run_maker("b")]))
    drawn = {figure.key: to_plotly(figure)["layout"] for figure in figures}
    ticks = drawn["perplexity-by-loop"]["yaxis"]["ticktext"]
    assert ticks[-1] == "10²²"  # every third decade
    assert not re.search(r"\d[kMGTPEZY]", " ".join(ticks))
    assert drawn["learning"]["xaxis"]["exponentformat"] == "power"
