"""Rounding: how far other number formats lead each model away from fp32, as lines by loop and as a table."""

import math
from collections.abc import Sequence

from loopscope.report.audits.drift import undrawn_models
from loopscope.report.audits.line_series import Quantity, lines
from loopscope.report.audits.models import MOST_MODELS, ModelView, model_depth_marks
from loopscope.report.plots.figure import Figure
from loopscope.report.study.table import HeadlineTable, TableCell
from loopscope.results import ROUNDING_WORST_FIRST, AuditReport, RoundedLoop, Rounding


def rounding_error(models: Sequence[ModelView]) -> Figure:
    """Draw ‖H'_k − H_k‖ / ‖H_k‖ per loop, one panel a format where several models are shown."""
    on = models[:MOST_MODELS]
    names = list(dict.fromkeys(tried.format for model in on for tried in model.report.rounding))
    series, panels = lines(on, [_off(name) for name in names], log_y=True)
    return Figure(
        key="audit-rounding",
        title="How far another number format leads away from fp32",
        caption="Same weights, same tokens: the difference of the states over the state, by loop. Level: each loop is "
        "as wrong as the one before. Rising: more loops make it worse. A model whose scale runs away is stiff and "
        "hardly notices; what holds the scale decides whether an error grows." + undrawn_models(models),
        x_label="loop",
        y_label="‖H′ − H‖ / ‖H‖",
        series=series,
        panels=panels,
        log_y=True,
        whole_x=True,
        wide=len(panels) > 1,
        marks=model_depth_marks(on),
    )


def _off(name: str) -> Quantity:
    def values_of(report: AuditReport) -> list[float]:
        return [row.state for tried in report.rounding if tried.format == name for row in tried.loops]

    return name, values_of


def rounding_table(models: Sequence[ModelView]) -> HeadlineTable | None:
    """Return one row per model and number format; None where none was tried."""
    rows = [_row(model, tried) for model in models for tried in model.report.rounding]
    groups = (
        ("", ("model", "number format", "its error", "a loop")),
        ("H is off by", ("at the trained depth", "at four times")),
        ("its exit", ("nats at the trained depth", "loses 1 % from loop")),
    )
    return HeadlineTable(groups, tuple(rows)) if rows else None


def rounding_reasons(models: Sequence[ModelView]) -> list[tuple[str, str, str]]:
    """Return model, format and why, as the table has them."""
    return [(model.name, tried.format, tried.why) for model in models for tried in model.report.rounding]


def _row(model: ModelView, tried: Rounding) -> tuple[TableCell, ...]:
    rows = {row.loop: row for row in tried.loops}
    trained, last = rows.get(model.trained), tried.loops[-1] if tried.loops else None
    nats = trained.excess if trained else math.nan
    return (
        TableCell(model.name, model.name),
        TableCell(tried.format, tried.format),
        TableCell(tried.outcome, ROUNDING_WORST_FIRST.index(tried.outcome)),
        _growth(tried),
        _off_by(trained),
        _off_by(last),
        TableCell(f"{nats:+.4f}", nats) if math.isfinite(nats) else TableCell("–", math.inf),
        _lost(tried),
    )


def _growth(tried: Rounding) -> TableCell:
    if tried.growth is None:
        return TableCell("–", math.inf)
    return TableCell(f"{100 * tried.growth:+.1f} %", tried.growth)


def _lost(tried: Rounding) -> TableCell:
    if tried.lost_at is None:
        return TableCell("never" if tried.loops else "–", math.inf)
    return TableCell(str(tried.lost_at), tried.lost_at)


def _off_by(row: RoundedLoop | None) -> TableCell:
    if row is None or not math.isfinite(row.state):
        return TableCell("–", math.inf)
    return TableCell(f"{row.state:.2%}", row.state)
