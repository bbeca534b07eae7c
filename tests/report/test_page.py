"""The page: one file, offline, escaped, drawn."""

import base64
import gzip
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from loopscope.report.interactive import to_plotly
from loopscope.report.page import write_report
from loopscope.report.statistics import group
from loopscope.report.study_figures import build_figures
from loopscope.results import StudyResults, to_json

EVIL = '</script><img src=x onerror="boom()">{{ 7*7 }}'


def write(folder: Path, study: StudyResults) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(to_json(study))
    page = write_report(folder)
    assert page == folder / "report.html"
    assert page.stat().st_size < 3_000_000
    return page.read_text()


class Tags(HTMLParser):
    """All start tags with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))


def test_one_self_contained_file_with_figures_beside_it(
    tmp_path: Path, run_maker: Any, study_maker: Any
) -> None:
    runs = [
        run_maker(name, seed, scale=scale) for name, scale in (("a", 1.0), ("b", 90.0)) for seed in range(3)
    ]
    text = write(tmp_path, study_maker(*runs))
    for tag, attributes in Tags(text).tags:
        for name in ("src", "href"):
            address = attributes.get(name)
            assert address is None or address.startswith("data:"), (tag, address)
    assert "@import" not in text
    assert "± " in text
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


def test_plotly_is_inside_whole(tmp_path: Path, run_maker: Any, study_maker: Any) -> None:
    text = write(tmp_path, study_maker(run_maker()))
    packed = re.search(r'id="plotly-gz">([^<]+)</script>', text)
    assert packed is not None
    assert b"plotly.js v" in gzip.decompress(base64.b64decode(packed[1]))[:200]
    data = re.search(r'id="figure-data">(.*?)</script>', text, re.S)
    assert data is not None
    assert "scale-by-loop" in json.loads(data[1])


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
    tags = Tags(text).tags
    assert all(attributes.get("src") != "x" and "onerror" not in attributes for _, attributes in tags)
    assert text.count("<script") == 3
    assert text.count("</script>") == 3
    assert "{{ 7*7 }}" in text  # shown, not computed


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
        f.key: f for f in build_figures(group([run_maker("a", 0), run_maker("a", 1), run_maker("b", 0)]))
    }
    curve = figures["scale-by-loop"].series[0]
    assert curve.x == (1.0, 2.0, 3.0, 4.0)
    assert curve.y[3] == pytest.approx(10 * 4 * 1.025)
    assert curve.low[3] < curve.y[3] < curve.high[3]
    assert figures["scale-by-loop"].series[1].low == ()  # one seed: no band
    assert {series.name for series in figures["exits-against-scale"].series} == {"a", "b"}
    assert figures["exits-against-scale"].areas
    drawn = to_plotly(figures["scale-last-loop"])
    assert drawn["layout"]["yaxis"]["type"] == "log"
    assert len(drawn["data"]) == 2


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium to draw the page")
def test_a_browser_draws_every_figure(tmp_path: Path, run_maker: Any, study_maker: Any) -> None:
    write(tmp_path, study_maker(run_maker("a", scale=1.0), run_maker("b", scale=50.0)))
    done = subprocess.run(
        [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--virtual-time-budget=20000",
            "--dump-dom",
            (tmp_path / "report.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=180,
    )
    dom = done.stdout
    drawn = re.findall(r'class="plot js-plotly-plot" data-figure="([^"]+)"', dom)
    assert len(drawn) == 6, done.stderr[-2000:]
    assert dom.count('class="main-svg"') >= 6
