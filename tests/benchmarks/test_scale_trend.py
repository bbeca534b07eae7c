"""The fit behind a run's scale trend: what is shipped is what committed histories give, and it beats plain rules."""

import statistics

import pytest

from benchmarks.scale_trend import Case, cases_of, fit, load_histories
from loopscope.monitor.scale_trend import GOES_ON, RESTING_SPREAD, SPREAD_OF_CHANGE

CASES = [case for row in load_histories() for case in cases_of(row)]


def test_the_shipped_numbers_are_those_of_the_fitted_runs() -> None:
    assert fit([case for case in CASES if case.part == "fit"]) == pytest.approx(
        (GOES_ON, RESTING_SPREAD, SPREAD_OF_CHANGE), abs=1e-3
    )


def test_on_runs_that_it_never_saw_it_is_nearer_than_plain_rules() -> None:
    tested = [case for case in CASES if case.part != "fit"]
    assert len(tested) > 60

    def off(share: float) -> float:
        return statistics.median(abs(case.next - share * case.moved) for case in tested)

    assert off(GOES_ON) < 0.8 * off(0.0)
    assert off(GOES_ON) < 0.8 * off(1.0)
    inside = [
        abs(case.next - GOES_ON * case.moved) <= RESTING_SPREAD + SPREAD_OF_CHANGE * abs(case.moved)
        for case in tested
    ]
    assert 0.75 <= sum(inside) / len(inside) <= 0.95


def test_a_rule_that_holds_exactly_is_found() -> None:
    cases = [Case("made up", "fit", moved / 10, moved / 20) for moved in range(-9, 10)]
    assert fit(cases)[0] == pytest.approx(0.5)
