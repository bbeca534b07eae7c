"""Reading a page back: its tags, its figures, and text that tries to break out of it."""

import json
import re
import shutil
from html.parser import HTMLParser
from typing import Any

import pytest

from loopscope.report.plots.sheet import Sheet

EVIL = '</script><img src=x onerror="boom()">{{ 7*7 }}'


class Tags(HTMLParser):
    """All start tags with their attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def assert_offline(text: str) -> None:
    """Nothing is fetched: every address is data inside the page, or a place on it."""
    for tag, attributes in Tags(text).tags:
        for name in ("src", "href", "srcset", "action", "xlink:href"):
            address = attributes.get(name)
            assert address is None or address.startswith(("data:", "#")), (tag, address)
    style = "".join(re.findall(r"<style>(.*?)</style>", text, re.DOTALL))
    assert style
    assert "@import" not in style
    assert "url(" not in style


def assert_nothing_breaks_out(text: str) -> None:
    """What `EVIL` would add is not there, and it is shown as it is written, not computed."""
    tags = Tags(text).tags
    assert all(attributes.get("src") != "x" and "onerror" not in attributes for _, attributes in tags)
    assert text.count("<script") == 3
    assert text.count("</script>") == 3
    assert "{{ 7*7 }}" in text


def figure_data(text: str) -> dict[str, Any]:
    """What the page hands to plotly, by figure."""
    data = re.search(r'id="figure-data">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    found: dict[str, Any] = json.loads(data[1])
    return found


def installed_chromium() -> str | None:
    """Return the system's Chromium; None leaves the choice to the driver, which knows its own."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


def without_files(patch: pytest.MonkeyPatch) -> None:
    """Draw every figure once, for the page, in this process, and write no files beside it."""
    patch.setattr("loopscope.report.plots.to_matplotlib._png", lambda canvas: b"")
    patch.setattr("loopscope.report.plots.sheet.Sheet.save", lambda sheet, directory, key: [])
    patch.setattr("loopscope.report.plots.drawing.SHARED_FROM", 1000)


def without_pictures(patch: pytest.MonkeyPatch) -> None:
    """Leave still pictures blank, on the page and in the files beside it; start no process for them."""
    from loopscope.report.plots import drawing

    blank = '<svg xmlns="http://www.w3.org/2000/svg"/>'
    patch.setattr(drawing, "_draw", lambda job: Sheet(b"", blank, blank))
    patch.setattr(drawing, "SHARED_FROM", 1000)
