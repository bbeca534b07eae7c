"""Pages as a reader sees them, in Chromium: at a desk's width and on a phone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page

from loopscope.report.audit_page import write_audit_page
from loopscope.report.page import write_report
from loopscope.results import audit_values, to_json
from tests.report.audits.fixtures import make_audit
from tests.report.evaluations.fixtures import make_comparison, make_evaluation
from tests.report.fixtures import without_files
from tests.report.study.fixtures import make_failed, make_run, make_study

DESK, PHONE, PAPER = 1400, 390, 718
NAMES = (
    "dense/rmsnorm-with-a-name-that-is-long-enough-to-be-cut-and-ends-in-1",
    "dense/rmsnorm-with-a-name-that-is-long-enough-to-be-cut-and-ends-in-2",
    "a/raw",
)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A study with everything that a page can have, and a page of one audit."""
    study = tmp_path_factory.mktemp("study")
    runs = [make_run(name, seed, scale=1.0 + 40 * n) for n, name in enumerate(NAMES) for seed in range(3)]
    (study / "results.json").write_text(to_json(make_study(*runs, make_failed())))
    for n, name in enumerate(NAMES):
        for seed in range(3):
            run = study / f"condition-{9 - n}" / f"seed-{seed}"
            run.mkdir(parents=True)
            (run / "evaluation.json").write_text(to_json(make_evaluation(name, seed)))
            if seed == 0:
                verdict: Any = ("blind", "damped", "visible")[n]
                (run / "audit.json").write_text(to_json(audit_values(make_audit(name, verdict))))
    (study / "comparison.json").write_text(to_json(make_comparison(NAMES)))
    with pytest.MonkeyPatch.context() as patch:
        without_files(patch)
        audit = write_audit_page([make_audit("alone")], study / "audit.html")
        return {"study": write_report(study), "audit": audit}


class Opened(NamedTuple):
    """A page that has drawn its figures, and what it said on the console."""

    page: Page
    said: list[str]
    width: int


@pytest.fixture(scope="module", params=[(kind, width) for kind in ("study", "audit") for width in (DESK, PHONE)],
                ids=lambda param: f"{param[0]}-{param[1]}")  # fmt: skip
def opened(request: pytest.FixtureRequest, browser: Browser, pages: dict[str, Path]) -> Iterator[Opened]:
    kind, width = request.param
    page = browser.new_page(viewport={"width": width, "height": 900}, has_touch=width == PHONE)
    said: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            said.append(message.text)

    page.on("console", heard)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(pages[kind].as_uri())
    page.wait_for_selector("html[data-drawn]", timeout=60_000)
    yield Opened(page, said, width)
    page.close()


def test_nothing_is_said_on_the_console_and_nothing_is_wider_than_the_screen(opened: Opened) -> None:
    assert opened.said == []
    wide = opened.page.evaluate(
        """() => [...document.querySelectorAll("body *")].filter((element) => {
            const box = element.getBoundingClientRect();
            return box.width && box.right > innerWidth + 1 && !element.closest(".holder, .scroll, pre, #tip");
        }).map((element) => element.outerHTML.slice(0, 90))"""
    )
    assert wide == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= opened.width


def test_every_figure_is_drawn(opened: Opened) -> None:
    figures = opened.page.evaluate(
        """() => [...document.querySelectorAll("[data-figure]")].map((plot) => [
            plot.dataset.figure, plot.querySelectorAll(".main-svg").length, plot.clientHeight > 100,
            plot.querySelectorAll(".trace, .hm").length, plot.data.length])"""
    )
    assert len(figures) >= 12
    assert all(svgs and tall and traces for _, svgs, tall, traces, _ in figures), figures


def test_drawing_again_changes_nothing(opened: Opened) -> None:
    """A page is drawn again whenever its width changes."""
    areas = """() => [...document.querySelectorAll("[data-figure]")].map((plot) => [
        plot.dataset.figure, plot._fullLayout._size.h, plot.clientHeight])"""
    before = opened.page.evaluate(areas)
    opened.page.evaluate("delete document.documentElement.dataset.drawn; dispatchEvent(new Event('resize'))")
    opened.page.wait_for_selector("html[data-drawn]", timeout=60_000)
    assert opened.page.evaluate(areas) == before
    assert all(plotted > 0.3 * high for _, plotted, high in before), before


def test_colors_and_order_are_alike_in_all_sections(opened: Opened) -> None:
    """As drawn, not as handed over: traces of a condition, panels, rows of tables, cards and their strips."""
    shown = opened.page.evaluate(
        """() => ({
            traces: [...document.querySelectorAll("[data-figure]")].map((plot) => plot._fullData
                .filter((trace) => trace.name && trace.type === "scatter")
                .map((trace) => [trace.name, trace.mode.includes("lines") ? trace.line.color : trace.marker.color])),
            tables: [...document.querySelectorAll("table.headline, table.matrix")].map((table) =>
                [...table.querySelectorAll("tbody th")].map((cell) => cell.dataset.sort)),
            cards: [[...document.querySelectorAll(".card .model")].map((card) => card.textContent)],
        })"""
    )
    colors: dict[str, set[str]] = {}
    for traces in shown["traces"]:
        for name, color in traces:
            if name in NAMES:
                colors.setdefault(name, set()).add(color)
    assert all(len(found) == 1 for found in colors.values()), colors
    assert len(set.union(set(), *colors.values())) == len(colors)
    orders = [[name for name, _ in traces] for traces in shown["traces"]] + shown["tables"] + shown["cards"]
    for order in orders:
        named = list(dict.fromkeys(name for name in order if name in NAMES))
        assert named == [name for name in NAMES if name in named]


def test_contents_lead_to_every_section_and_part(opened: Opened) -> None:
    links = opened.page.eval_on_selector_all(
        ".contents a", "links => links.map((link) => link.getAttribute('href'))"
    )
    headings = opened.page.eval_on_selector_all(
        "main h2[id], main h3.part[id]", "found => found.map((heading) => `#${heading.id}`)"
    )
    assert links == headings
    opened.page.click(f'.contents a[href="{links[-2]}"]')
    top = opened.page.eval_on_selector(links[-2], "heading => heading.getBoundingClientRect().top")
    assert 0 <= top < 900
    opened.page.wait_for_selector(".up.shown")
    opened.page.click(".up")
    assert opened.page.eval_on_selector(".contents", "nav => nav.getBoundingClientRect().top") < 900


def test_terms_show_their_one_meaning(opened: Opened) -> None:
    page = opened.page
    defined = page.eval_on_selector_all("dl.words dt", "found => found.map((word) => word.id)")
    assert len(defined) == len(set(defined)) > 8
    used = page.eval_on_selector_all(
        "[data-word]", "found => found.map((word) => `word-${word.dataset.word}`)"
    )
    assert used
    assert set(used) <= set(defined)
    names = page.eval_on_selector_all("dl.words dt", "found => found.map((word) => word.textContent)")
    assert len(names) == len(set(names))  # one glossary: no word has two meanings
    for word in (page.locator("figcaption .term").first, page.locator("thead .term").first):
        if not word.count():
            continue
        word.scroll_into_view_if_needed()
        word.hover()
        tip = page.locator("#tip")
        meaning = page.locator(f"#word-{word.get_attribute('data-word')} + dd").text_content()
        assert tip.text_content() == meaning
        box = tip.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= opened.width
        page.keyboard.press("Escape")
        assert tip.is_hidden()


def test_names_are_whole_and_what_goes_on_sideways_says_so(opened: Opened) -> None:
    cut = opened.page.evaluate(
        """() => [...document.querySelectorAll("tbody th, .model")].filter((name) =>
            name.checkVisibility() && name.scrollWidth > name.clientWidth + 1).map((name) => name.textContent)"""
    )
    assert cut == []
    silent = opened.page.evaluate(
        """() => [...document.querySelectorAll(".holder, .scroll")].filter((box) => box.checkVisibility() &&
            box.scrollWidth > box.clientWidth + 4 && !(box.classList.contains("more") &&
            box.nextElementSibling.classList.contains("hint") && box.nextElementSibling.checkVisibility())).length"""
    )
    assert silent == 0
    if opened.width == PHONE:
        assert opened.page.locator(".hint:visible").count() > 0


def test_the_first_screen_says_what_to_do(opened: Opened) -> None:
    if opened.width == PHONE:
        pytest.skip("a phone's first screen holds the first verdict alone")
    opened.page.evaluate("scrollTo(0, 0)")
    last = opened.page.locator(".verdicts li").last.bounding_box()
    assert last is not None
    assert last["y"] + last["height"] < 900
    assert "What to do:" in (opened.page.locator(".verdicts").text_content() or "")


def test_paper_has_the_still_pictures(opened: Opened) -> None:
    page = opened.page
    page.emulate_media(media="print")
    stills = page.eval_on_selector_all(
        "img.still", "found => found.map((image) => image.checkVisibility() && image.naturalWidth > 100)"
    )
    assert stills
    assert all(stills)
    assert page.locator(".plot:visible, .up:visible, .hint:visible").count() == 0
    page.emulate_media(media="screen")


def test_on_paper_nothing_is_cut_dark_or_a_heading_alone(opened: Opened) -> None:
    """At the width of A4 between a browser's own margins, also where the screen is dark."""
    page = opened.page
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": PAPER, "height": 1000})
    cut = page.evaluate(
        """() => [...document.querySelectorAll("main *")].filter((element) =>
            element.checkVisibility() && element.getBoundingClientRect().right > innerWidth + 1
        ).map((element) => element.outerHTML.slice(0, 90))"""
    )
    assert cut == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    alone = page.evaluate(
        """() => [...document.querySelectorAll("main h2, main h3")].filter((heading) => {
            const next = heading.nextElementSibling;
            return heading.checkVisibility() && !(next && next.checkVisibility() && next.offsetHeight);
        }).map((heading) => heading.textContent)"""
    )
    assert alone == []
    sizes = page.eval_on_selector_all(
        "table", "found => found.map((table) => parseFloat(getComputedStyle(table).fontSize))"
    )
    assert min(sizes) >= 7
    page.emulate_media(media="screen", color_scheme="light")
    page.set_viewport_size({"width": opened.width, "height": 900})
