"""The table of how firmly a scale is held, and where it is going where a run says so."""

from dataclasses import replace

from loopscope.report.audits.models import model_views
from loopscope.report.audits.resting import resting_line, resting_table
from loopscope.results import AuditedModel, RestingScale, ScaleTrend
from tests.report.audits.fixtures import make_audit

TREND = ScaleTrend(600, half=57.6, now=47.6, twice=43.3, low=37.0, high=50.7)


def _held(trend: ScaleTrend | None, **named: str) -> AuditedModel:
    audit = make_audit(**named)
    resting = RestingScale("held by penalties", "They pull it down.", rms=4.2, l2_norm=47.6, pull=0.39)
    return replace(audit, report=replace(audit.report, resting=resting), trend=trend)


def test_a_run_that_is_going_somewhere_has_columns_for_it() -> None:
    table = resting_table(model_views([_held(TREND)]))
    assert table is not None
    assert table.groups[-1] == ("L2 norm over training", ("half the steps", "twice the steps"))
    half, twice = table.rows[0][-2:]
    assert (half.text, twice.text, twice.interval) == ("57.6", "43.3", "37 to 50.7")
    assert len(table.rows[0]) == sum(len(names) for _, names in table.groups)


def test_a_model_without_a_training_of_its_own_has_none() -> None:
    table = resting_table(model_views([_held(None)]))
    assert table is not None
    assert len(table.rows[0]) == sum(len(names) for _, names in table.groups) == 5
    beside = resting_table(model_views([_held(None), replace(_held(TREND), name="other")]))
    assert beside is not None
    assert {row[-1].text for row in beside.rows} == {"–", "43.3"}


def test_a_card_says_both() -> None:
    said = resting_line(_held(TREND))
    assert said.startswith(
        "Scale held by penalties. They pull it down. It still falls: in the log of training the L2 norm of H"
    )
    assert resting_line(_held(None)) == "Scale held by penalties. They pull it down."
    bare = make_audit()
    assert resting_line(replace(bare, report=replace(bare.report, resting=None))) == ""
