"""The page of a logit lens: what it shows, and tokens that try to break out of it."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from loopscope.report import write_lens_page
from loopscope.report.lens_page import settled_spread, token_rows
from loopscope.results import Guess, LensLoop, LogitLens, TokenView
from tests.fixtures import refusal
from tests.report.fixtures import EVIL, Tags, assert_nothing_breaks_out, assert_offline

LONG = "supercalifragilisticexpialidocious_and_more"


def a_lens(tokens: int = 40, loops: int = 6, text: str = EVIL, gate: float | None = None) -> LogitLens:
    """A record of so many tokens and loops, every text of it the same one; odd tokens settle at loop 3."""

    def view(place: int, loop: int) -> TokenView:
        token = loop if place % 2 and loop < 3 else 9
        guesses = (Guess(token, f"{text}{token}", 0.5 + 0.05 * loop), Guess(7, text, 0.1))
        return TokenView(
            guesses, None if place == tokens - 1 else 0.2, 1.5, gate, 2.0, 16.0, 0.9 if loop > 1 else None
        )

    return LogitLens(
        name=text,
        prompt=text * 3,
        token_ids=(9,) * tokens,
        token_texts=(f" {text}\n",) * tokens,
        trained_loops=4,
        loops=tuple(
            LensLoop(k, tuple(view(place, k) for place in range(tokens))) for k in range(1, loops + 1)
        ),
        settled=tuple(3 if place % 2 else 1 for place in range(tokens)),
        layers=("layers.0", text),
        parameters=1234,
    )


def test_the_page_works_offline_and_nothing_breaks_out(tmp_path: Path) -> None:
    text = write_lens_page(a_lens(gate=0.25), tmp_path / "new" / "page.html").read_text()
    assert_offline(text)
    assert_nothing_breaks_out(text)
    assert "Gate: the probability of stopping here" in text
    assert "stopping here" not in write_lens_page(a_lens(), tmp_path / "page.html").read_text()


def test_every_token_is_a_row_and_every_loop_a_column(tmp_path: Path) -> None:
    page = write_lens_page(a_lens(tokens=5, loops=4, text="ab"), tmp_path / "page.html")
    tags = Tags(page.read_text()).tags
    cells = [attributes for tag, attributes in tags if tag == "td" and "style" in attributes]
    assert len(cells) == 5 * 4
    assert [cell["class"] for cell in cells[4:8]] == ["open", "open", "settled", "settled"]
    assert cells[0]["style"] == "--seen: 0.55"
    assert cells[0]["title"] == "then ab 10 %; the text's own next token: 20 %"
    assert cells[-1]["title"] == "then ab 10 %"


def test_what_is_not_seen_is_written_out() -> None:
    (row, *_) = token_rows(a_lens(tokens=2, text="a\tb\u202e"))
    assert row.text == "␣a⇥b\\u{202e}↵"
    assert row.cells[0].right
    assert token_rows(a_lens(tokens=2, text="\x00"))[0].text == "␣\\u{0}↵"
    assert token_rows(a_lens(tokens=2, text=LONG))[0].cells[0].text.endswith("…")
    assert settled_spread([1, 3, 1]) == "2 at loop 1, 1 at loop 3"


def test_a_folder_is_no_page(tmp_path: Path) -> None:
    said = refusal(lambda: write_lens_page(a_lens(), tmp_path))
    assert said is not None
    assert "lens.html" in said


@pytest.mark.parametrize("width", [1400, 390])
def test_nothing_is_wider_than_the_screen(tmp_path: Path, browser: Browser, width: int) -> None:
    path = write_lens_page(a_lens(loops=12, text=LONG, gate=0.5), tmp_path / "page.html")
    page = browser.new_page(viewport={"width": width, "height": 900})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = page.evaluate(
        """() => [...document.querySelectorAll("body *")].filter((element) => {
            const box = element.getBoundingClientRect();
            return box.width && box.right > innerWidth + 1 && !element.closest(".scroll, pre, #tip");
        }).map((element) => element.outerHTML.slice(0, 90))"""
    )
    assert wide == []
    assert said == []
    links = page.eval_on_selector_all(
        ".contents a", "found => found.map((link) => link.getAttribute('href'))"
    )
    assert links == page.eval_on_selector_all(
        "main h2[id]", "found => found.map((heading) => `#${heading.id}`)"
    )
    page.close()
