"""How firmly a scale is held: the lines of a card, and the table that compares models."""

import math
from collections.abc import Sequence
from typing import get_args

from loopscope.report.audits.models import ModelView
from loopscope.report.study.table import HeadlineTable, TableCell, number
from loopscope.results import AuditedModel, RestingScale, RestingStatus

LEAST_FIRM_FIRST: tuple[RestingStatus, ...] = get_args(RestingStatus)
"""In the order in which a table sorts them."""


def resting_line(audited: AuditedModel) -> str:
    """Return what a card says of how firmly the scale is held and where it goes; empty for an earlier version's."""
    held = f"Scale {' '.join(audited.report.resting.lines())}" if audited.report.resting else ""
    return " ".join([held, *(audited.trend.lines() if audited.trend else ())]).strip()


def resting_table(models: Sequence[ModelView]) -> HeadlineTable | None:
    """Return one row per model: what holds its scale, how hard, and where it goes; None where nothing was measured."""
    trends = any(model.audited.trend is not None for model in models)
    rows = [_row(model, found, trends) for model in models if (found := model.report.resting) is not None]
    groups = (
        ("", ("model", "its scale")),
        ("of H, all loops", ("L2 norm", "RMS")),
        ("penalties pull", ("nats, e times as large",)),
        *((("L2 norm over training", ("half the steps", "twice the steps")),) if trends else ()),
    )
    return HeadlineTable(groups, tuple(rows)) if rows else None


def _row(model: ModelView, found: RestingScale, trends: bool) -> tuple[TableCell, ...]:
    trend = model.audited.trend
    if trend is None:
        going = (TableCell("–", math.inf), TableCell("–", math.inf))
    else:
        low, high = number(trend.low), number(trend.high)
        going = (_cell(trend.half), TableCell(number(trend.twice), trend.twice, interval=f"{low} to {high}"))
    return (
        TableCell(model.name, model.name),
        TableCell(found.status, LEAST_FIRM_FIRST.index(found.status)),
        _cell(found.l2_norm),
        _cell(found.rms),
        _cell(found.pull) if found.pull else TableCell("–", 0.0),
        *(going if trends else ()),
    )


def _cell(value: float) -> TableCell:
    return TableCell(number(value), value) if math.isfinite(value) else TableCell("–", math.inf)
