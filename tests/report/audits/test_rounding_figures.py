"""What a page shows of rounding is what its records hold."""

from dataclasses import replace

from loopscope.report.audits.section import build_audit_section
from loopscope.results import AuditedModel, RoundedLoop, Rounding
from tests.report.audits.fixtures import make_audit, make_report


def tried(name: str, off: float, outcome: str = "stays", lost: int | None = None) -> Rounding:
    rows = tuple(RoundedLoop(k, off * k, off, off, 4.0, 0.002 * k, 0.0, 0.0, 0.0) for k in range(1, 17))
    return Rounding(name, outcome, f"made up: {name} {outcome}", rows, lost_at=lost)  # type: ignore[arg-type]


def audited(name: str, *formats: Rounding) -> AuditedModel:
    return make_audit(name=name, report=make_report("blind", rounding=formats))


def test_one_model_has_a_line_per_format_and_several_a_panel() -> None:
    one = build_audit_section([audited("a", tried("bf16", 0.001), tried("int8", 0.002))])
    (figure,) = (figure for figure in one.figures if figure.key == "audit-rounding")
    assert [series.name for series in figure.series] == ["bf16", "int8"]
    assert figure.series[1].y == tuple(0.002 * k for k in range(1, 17))
    two = build_audit_section([audited("a", tried("bf16", 0.001)), audited("b", tried("int8", 0.002))])
    (figure,) = (figure for figure in two.figures if figure.key == "audit-rounding")
    assert figure.panels == ("bf16", "int8")
    assert [(series.name, series.panel) for series in figure.series] == [("a", 0), ("b", 1)]


def test_the_table_says_what_becomes_of_each_error_and_why() -> None:
    broken = Rounding("fp16", "not measured", "The model does not run in fp16 here: no kernel")
    section = build_audit_section(
        [audited("a", replace(tried("int4", 0.01, "grows", lost=3), growth=0.12), broken)]
    )
    assert section.rounding is not None
    assert [[cell.text for cell in row] for row in section.rounding.rows] == [
        ["a", "int4", "grows", "+12.0 %", "4.00%", "16.00%", "+0.0080", "3"],
        ["a", "fp16", "not measured", "–", "–", "–", "–", "–"],
    ]
    assert section.reasons[1] == ("a", "fp16", "The model does not run in fp16 here: no kernel")


def test_an_audit_without_other_formats_has_no_such_part() -> None:
    section = build_audit_section([audited("a")])
    assert section.rounding is None
    assert "rounding" not in [block.key for block in section.blocks]
