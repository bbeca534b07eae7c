"""The contents of a page: its sections and their parts, each a link."""

from collections.abc import Sequence
from dataclasses import dataclass

from loopscope.report.audits.section import AuditSection
from loopscope.report.evaluations.section import EvaluationSection


@dataclass(frozen=True)
class Entry:
    """A line of the contents; `key` is the id of the heading that it leads to."""

    key: str
    title: str
    parts: tuple["Entry", ...] = ()


def audit_entries(audit: AuditSection) -> tuple[Entry, ...]:
    """Return the parts of the audits' section, in its order."""
    return (
        *((Entry("part-remedies", "What would close it"),) if audit.remedies else ()),
        *((Entry("part-corner", "Visibility against carry"),) if audit.corner else ()),
        *((Entry("part-seen", "Who sees it, loop by loop"),) if audit.seen else ()),
        *((Entry("part-resting", "How firmly it is held"),) if audit.resting else ()),
        *((Entry("part-beside", "Beside H"),) if audit.beside else ()),
        *((Entry("part-foretold", "More loops than trained"),) if audit.foretold else ()),
        *(Entry(f"part-{block.key}", block.title) for block in audit.blocks),
    )


def evaluation_entries(evaluation: EvaluationSection) -> tuple[Entry, ...]:
    """Return the parts of the evaluations' section, in its order."""
    return tuple(Entry(f"part-{part.key}", part.title) for part in evaluation.parts)


def page_entries(
    runs: bool,
    figures: bool,
    evaluation: EvaluationSection | None,
    audit: AuditSection | None,
    unread: Sequence[str],
    endings: bool,
) -> tuple[Entry, ...]:
    """Return the contents of a study's page.

    Args:
        runs: whether it has runs, and is not a page of one model that is none.
        figures: whether it has any of its runs.
        unread: files of evaluations and of audits that could not be read; their sections say so.
        endings: whether a run ended early.
    """
    return (
        *((Entry("results", "Results"),) if runs else ()),
        *((Entry("figures", "Figures"),) if figures else ()),
        *(
            (Entry("depth", "Depth and exits", evaluation_entries(evaluation) if evaluation else ()),)
            if evaluation or "depth" in unread
            else ()
        ),
        *(
            (Entry("audit", "Audit", audit_entries(audit) if audit else ()),)
            if audit or "audit" in unread
            else ()
        ),
        *((Entry("endings", "Runs that ended early"),) if endings else ()),
        Entry("words", "Words"),
        Entry("origin", "What was run on what"),
    )
