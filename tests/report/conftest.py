"""Fixtures of the report's tests; what they are made of stands in `tests.report.study.fixtures`."""

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from loopscope.report.plots import drawing, to_matplotlib
from loopscope.report.plots.drawing import Job
from loopscope.report.plots.sheet import Sheet
from loopscope.results import StudyResults
from tests.report.fixtures import installed_chromium, without_files, without_pictures
from tests.report.study.fixtures import Maker, make_failed, make_run, make_study

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture
def run_maker() -> Maker:
    return make_run


@pytest.fixture
def failed_maker() -> Maker:
    return make_failed


@pytest.fixture
def study_maker() -> Callable[..., StudyResults]:
    return make_study


@pytest.fixture(scope="session", autouse=True)
def _drawn_once() -> Iterator[None]:
    """Pages that show the same figure share its drawing, which is most of what a page costs, and draw in this process.
    That equal figures have equal drawings is held by `plots/test_drawing.py`, and other processes are."""
    kept: dict[tuple[bool, str], Sheet] = {}
    png = to_matplotlib._png

    def once(job: Job) -> Sheet:
        content = (to_matplotlib._png is png, repr(job))  # `without_files` has none
        if content not in kept:
            kept[content] = to_matplotlib.sheet(job.figures, job.title)
        return kept[content]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "_draw", once)
        patch.setattr(drawing, "SHARED_FROM", 1000)
        yield


@pytest.fixture
def page_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the files in `figures/`: every figure is drawn once, for the page, in this process."""
    without_files(monkeypatch)


@pytest.fixture
def undrawn(page_only: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page's words, tables and figures for plotly, with blanks for the still pictures."""
    without_pictures(monkeypatch)


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """Chromium, started once and kept. Without one the tests are skipped, but not in CI, which installs it."""
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as driver:
        try:
            kept = driver.chromium.launch(executable_path=installed_chromium(), args=["--no-sandbox"])
        except Error as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(
                f"no Chromium ({str(error).splitlines()[0]}); `playwright install chromium`, or the system's"
            )
        yield kept
        kept.close()
