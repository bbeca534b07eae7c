"""What tests cost, kept in tests/assets/costs.json: the dearest files start first, `--quick` leaves out the dear, and
the dearest are `slow`.

    make test PYTEST_OPTIONS=--record-costs    # measure them anew, and again with `make slow`

Files go to workers whole, since their tests share what their fixtures have made. A file that starts last and is long
leaves the other worker idle; the cheapest last keep both busy to the end. The record needs no upkeep to be right: a
test that it does not know counts as cheap.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

RECORD = Path(__file__).parent / "assets" / "costs.json"
DEAR = 0.06
"""Seconds from which a test is recorded, and left out by `--quick`."""

SLOW = 1.5
"""Seconds from which a test is marked `slow`, as one that says so itself is: not in `make test`, but in `make slow`."""

CHEAP = 0.02
"""Seconds that every other test counts for: about their mean."""


def read() -> dict[str, float]:
    """Seconds by test: of those that take longer than most."""
    return json.loads(RECORD.read_text()) if RECORD.exists() else {}


def file_costs(tests: Iterable[str], costs: Mapping[str, float]) -> dict[str, float]:
    """Seconds by test file."""
    total: dict[str, float] = defaultdict(float)
    for test in tests:
        total[test.partition("::")[0]] += costs.get(test, CHEAP)
    return dict(total)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("costs")
    group.addoption("--quick", action="store_true", help=f"leave out tests that take {DEAR} s or more")
    group.addoption("--record-costs", action="store_true", help=f"write what tests take to {RECORD.name}")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Recorder(config), "costs-recorder")


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    costs = read()
    for item in items:
        if costs.get(item.nodeid, 0) >= SLOW:
            item.add_marker("slow")
    if config.getoption("quick"):
        dear = [item for item in items if item.nodeid in costs]
        config.hook.pytest_deselected(items=dear)
        items[:] = [item for item in items if item.nodeid not in costs]
    files = file_costs((item.nodeid for item in items), costs)
    items.sort(
        key=lambda item: -files[item.nodeid.partition("::")[0]]
    )  # stable: a file's tests keep their order


class Recorder:
    """Sums up what every test takes, its fixtures included, and writes it at the end of a run of one of the suites."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.seconds: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] += report.duration

    def pytest_sessionfinish(self) -> None:
        worker = hasattr(self.config, "workerinput")
        if not worker and self.config.getoption("record_costs"):
            others = {name: s for name, s in read().items() if name not in self.seconds and _is_there(name)}
            ran = {name: round(s, 2) for name, s in self.seconds.items() if s >= DEAR}
            dear = dict(sorted({**others, **ran}.items()))
            RECORD.write_text(json.dumps(dear, indent=0, ensure_ascii=False) + "\n")


def _is_there(test: str) -> bool:
    return (RECORD.parents[2] / test.partition("::")[0]).is_file()
