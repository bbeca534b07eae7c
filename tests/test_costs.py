"""The order of test files, and what `--quick` leaves out."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import costs

TESTS = ("a.py::one", "a.py::two", "b.py::long", "b.py::short", "c.py::one")
SECONDS = {"b.py::long": 3.0, "c.py::one": 1.0, "gone.py::test": 9.0}


class Item:
    """A collected test."""

    def __init__(self, nodeid: str) -> None:
        self.nodeid = nodeid
        self.marks: list[str] = []

    def add_marker(self, name: str) -> None:
        self.marks.append(name)


def arranged(monkeypatch: pytest.MonkeyPatch, quick: bool) -> tuple[list[str], list[str]]:
    """Names of tests in the order in which they run, and of those left out."""
    left_out: list[Any] = []
    config: Any = SimpleNamespace(
        getoption=lambda name: {"quick": quick}[name],
        hook=SimpleNamespace(pytest_deselected=lambda items: left_out.extend(items)),
    )
    items: list[Any] = [Item(name) for name in TESTS]
    monkeypatch.setattr(costs, "read", lambda: SECONDS)
    costs.pytest_collection_modifyitems(config, items)
    return [item.nodeid for item in items], [item.nodeid for item in left_out]


def test_the_dearest_file_comes_first_and_its_tests_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    order = ["b.py::long", "b.py::short", "c.py::one", "a.py::one", "a.py::two"]
    assert arranged(monkeypatch, quick=False) == (order, [])


def test_quick_leaves_out_what_is_recorded_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    assert arranged(monkeypatch, quick=True) == (
        ["a.py::one", "a.py::two", "b.py::short"],
        ["b.py::long", "c.py::one"],
    )


def test_the_dearest_tests_are_slow_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "read", lambda: SECONDS)
    config: Any = SimpleNamespace(getoption=lambda name: False)
    items: list[Any] = [Item(name) for name in TESTS]
    costs.pytest_collection_modifyitems(config, items)
    assert {item.nodeid: item.marks for item in items if item.marks} == {"b.py::long": ["slow"]}


def test_a_test_that_is_not_recorded_counts_as_cheap() -> None:
    found = costs.file_costs(TESTS, SECONDS)
    assert found == pytest.approx({"a.py": 2 * costs.CHEAP, "b.py": 3 + costs.CHEAP, "c.py": 1.0})


def test_costs_are_summed_over_set_up_call_and_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(costs, "RECORD", tmp_path / "costs.json")
    config: Any = SimpleNamespace(getoption=lambda name: name == "record_costs")
    recorder = costs.Recorder(config)
    for name, seconds in (("a", 0.2), ("b", 0.1), ("a", 0.35), ("b", 0.2), ("c", 0.05)):
        recorder.pytest_runtest_logreport(SimpleNamespace(nodeid=name, duration=seconds))
    recorder.pytest_sessionfinish()
    assert costs.read() == pytest.approx({"a": 0.55, "b": 0.3})
