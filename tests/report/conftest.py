"""Fixtures of the report's tests; what they are made of stands in `tests.report.study.fixtures`."""

from collections.abc import Callable

import pytest

from loopscope.results import StudyResults
from tests.report.study.fixtures import Maker, make_failed, make_run, make_study


@pytest.fixture
def run_maker() -> Maker:
    return make_run


@pytest.fixture
def failed_maker() -> Maker:
    return make_failed


@pytest.fixture
def study_maker() -> Callable[..., StudyResults]:
    return make_study


@pytest.fixture
def page_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the files in `figures/`: every figure is drawn once, for the page."""
    monkeypatch.setattr("loopscope.report.html.save", lambda figure, directory: [])
