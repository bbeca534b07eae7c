"""How firmly a scale is held: the lines of a card, and the table that compares models."""

import math
from collections.abc import Sequence
from typing import get_args

from loopscope.report.audits.models import ModelView
from loopscope.report.study.table import HeadlineTable, TableCell, number
from loopscope.results import AuditReport, RestingScale, RestingStatus

LEAST_FIRM_FIRST: tuple[RestingStatus, ...] = get_args(RestingStatus)
"""In the order in which a table sorts them."""


def resting_line(report: AuditReport) -> str:
    """Return what a card says of how firmly the scale is held; empty for a record of an earlier version."""
    return f"Scale {' '.join(report.resting.lines())}" if report.resting else ""


def resting_table(models: Sequence[ModelView]) -> HeadlineTable | None:
    """Return one row per model: what holds its scale, and how hard; None where nothing was measured."""
    rows = [_row(model, found) for model in models if (found := model.report.resting) is not None]
    groups = (
        ("", ("model", "its scale")),
        ("of H, all loops", ("L2 norm", "RMS")),
        ("penalties pull", ("nats, e times as large",)),
    )
    return HeadlineTable(groups, tuple(rows)) if rows else None


def _row(model: ModelView, found: RestingScale) -> tuple[TableCell, ...]:
    return (
        TableCell(model.name, model.name),
        TableCell(found.status, LEAST_FIRM_FIRST.index(found.status)),
        _cell(found.l2_norm),
        _cell(found.rms),
        _cell(found.pull) if found.pull else TableCell("–", 0.0),
    )


def _cell(value: float) -> TableCell:
    return TableCell(number(value), value) if math.isfinite(value) else TableCell("–", math.inf)
