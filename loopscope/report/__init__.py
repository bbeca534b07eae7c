"""Reports: from result records to one page that works offline. Never loads torch.

In the order in which a page is made:

    found         the audits and evaluations of a folder, in the order in which a page shows them
    page          `write_report`: the page of a study, a run or a results file
    audit_page    `write_audit_page`: a page of audits alone
    lens_page     `write_lens_page`: a page of a logit lens
    study/        its tables, figures and findings
    audits/       what it says about audits
    evaluations/  what it says about evaluations
    plots/        figures: what they show, and the two ways of drawing them
    looks         one name, colour and place per condition of a page
    statements    what a reader concludes, in words, and what to do
    contents      sections and parts, each a link
    glossary      the words of a page, each with its one meaning
    html          the page as text, and its figures beside it
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopscope.report.audit_page import write_audit_page
    from loopscope.report.found import find_audits, find_evaluations
    from loopscope.report.lens_page import write_lens_page
    from loopscope.report.page import write_report

_HOMES = {
    "write_report": "page",
    "write_audit_page": "audit_page",
    "write_lens_page": "lens_page",
    "find_audits": "found",
    "find_evaluations": "found",
}
__all__ = [
    "find_audits",
    "find_evaluations",
    "write_audit_page",
    "write_lens_page",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use: the settings are needed where torch is not."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
