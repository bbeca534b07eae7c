"""Fates at their bounds, and prognoses in records on disk."""

import json
import math

import pytest

from loopscope.results import (
    AuditedModel,
    Fate,
    ForetoldDepth,
    LoopSigns,
    Prognosis,
    audit_values,
    audits_from_json,
    fate_of,
    to_json,
)
from tests.report.audits.fixtures import make_audit

ONE, HALF = math.log(1.01), math.log(1.5)

BOUNDS: list[tuple[float, float, Fate]] = [
    (0.0, 0.0, "settles"),
    (0.99 * ONE, 0.99 * ONE, "settles"),
    (-1.0, -0.99 * ONE, "settles"),
    (0.0, -1.01 * ONE, "improves"),
    (1.01 * ONE, -1.0, "drifts"),
    (0.0, 0.99 * HALF, "drifts"),
    (0.0, 1.01 * ONE, "drifts"),
    (0.0, 1.01 * HALF, "breaks"),
    (1.01 * HALF, 0.0, "breaks"),
    (0.0, math.inf, "breaks"),
    (math.nan, 0.0, "breaks"),
]


@pytest.mark.parametrize(("twice", "four_times", "fate"), BOUNDS)
def test_fates_at_their_bounds(twice: float, four_times: float, fate: Fate) -> None:
    assert fate_of(twice, four_times) == fate


def test_an_audit_keeps_its_prognosis_and_one_of_before_has_none() -> None:
    signs = (LoopSigns(1, 4.0, 1.0, 0.0, 0.0, 0.0, 0.0, 3.0),)
    told = Prognosis("settles", "why", 4, 0.8, (ForetoldDepth(8, 0.0, -0.1, 0.1),), signs, True)
    audited = make_audit(prognosis=told)
    text = to_json(audit_values(audited))
    assert audits_from_json(text) == [audited]
    assert audited.lines()[-1] == "More loops than trained: settles. why"
    assert told.table() == [{"loops": 8, "change": 0.0, "from": -0.1, "to": 0.1}]
    values = json.loads(text)
    del values["prognosis"]
    (before,) = audits_from_json(json.dumps(values))
    assert isinstance(before, AuditedModel)
    assert before.prognosis is None
