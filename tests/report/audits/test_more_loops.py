"""What a page shows of a prognosis is what its record holds."""

from loopscope.report.audits.section import build_audit_section
from loopscope.results import Fate, ForetoldDepth, Prognosis
from tests.report.audits.fixtures import make_audit


def told(fate: Fate = "drifts") -> Prognosis:
    at = (ForetoldDepth(8, 0.02, -0.01, 0.05), ForetoldDepth(16, 0.06, 0.01, 0.2))
    return Prognosis(fate, f"made up: {fate}", 4, 0.8, () if fate == "not told" else at)


def test_the_table_says_what_is_foretold_and_why() -> None:
    section = build_audit_section(
        [make_audit("a", prognosis=told()), make_audit("b", prognosis=told("not told")), make_audit("c")]
    )
    assert section.foretold is not None
    assert [[cell.text for cell in row] for row in section.foretold.rows] == [
        ["a", "drifts", "4", "+0.020", "+0.060"],
        ["b", "not told", "4", "–", "–"],
    ]
    assert section.foretold.rows[0][4].interval == "+0.010 to +0.200"
    assert section.foretold_why == (("a", "made up: drifts"), ("b", "made up: not told"))


def test_an_audit_of_before_has_no_such_part() -> None:
    assert build_audit_section([make_audit("a")]).foretold is None
