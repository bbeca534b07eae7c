"""A page of audits: one model, or several compared."""

from collections.abc import Sequence
from pathlib import Path

from loopscope.report.audits.section import build_audit_section
from loopscope.report.contents import Entry, audit_entries
from loopscope.report.glossary import AUDIT
from loopscope.report.html import origins, page_path, render
from loopscope.report.statements import audit_statements
from loopscope.results import AuditedModel


def write_audit_page(audits: Sequence[AuditedModel], out: str | Path) -> Path:
    """Write one self-contained HTML page of audits; every figure also goes to `figures/` beside it, as PNG and SVG.

    Args:
        audits: one model, or several that the page compares in this order. Tables and cards show all of them,
            figures the first eight.
        out: the page's path.

    Raises:
        ValueError: no audits, or `out` is a folder.
    """
    if not audits:
        raise ValueError("audits is empty: give at least one, such as load_audits(path) reads")
    page = page_path(out, "audit.html")
    section = build_audit_section(audits)
    title = section.models[0].name if len(audits) == 1 else f"audit of {len(audits)} models"
    rendered = render(
        "audit_page.html.j2",
        section.figures,
        parts=[AUDIT],
        title=title,
        statements=audit_statements(section.models),
        contents=(
            Entry("verdicts", "Verdicts"),
            *audit_entries(section),
            Entry("words", "Words"),
            Entry("origin", "What was measured on what"),
        ),
        audit=section,
        origins=origins([audited.provenance for audited in audits]),
    )
    rendered.write(page)
    return page
