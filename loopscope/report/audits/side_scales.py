"""The table of what goes from loop to loop beside H_k, where a model has such a thing."""

import math
from collections.abc import Sequence

from loopscope.report.audits.models import ModelView
from loopscope.report.study.table import HeadlineTable, TableCell, figures, number
from loopscope.results import WORST_FIRST, SideScale


def side_table(models: Sequence[ModelView]) -> HeadlineTable | None:
    """Return one row per model, thing beside H_k, and loop; None where no model has any."""
    rows = [_row(model, side) for model in models for side in model.report.side_scales]
    groups = (
        ("", ("model", "beside H", "loop", "verdict")),
        ("its scale", ("RMS", "carry")),
        ("seen through the next state", ("visibility", "radial share", "exposure")),
    )
    return HeadlineTable(groups, tuple(rows)) if rows else None


def _row(model: ModelView, side: SideScale) -> tuple[TableCell, ...]:
    return (
        TableCell(model.name, model.name),
        TableCell(side.name, side.name),
        TableCell(str(side.loop), float(side.loop)),
        TableCell(side.status, WORST_FIRST.index(side.status), badge=side.status),
        _cell(side.rms, figures(side.rms)),
        _cell(side.carry, f"{side.carry:.0%}"),
        _cell(side.visibility, number(side.visibility)),
        _cell(side.share, f"{side.share:.1%}"),
        _cell(side.exposure, number(side.exposure) if side.exposure else "nil"),
    )


def _cell(value: float, text: str) -> TableCell:
    return TableCell(text, value) if math.isfinite(value) else TableCell("not finite", math.inf)
