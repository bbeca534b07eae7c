"""What more loops than trained will do to each model, foretold: a table, and why."""

import math
from collections.abc import Sequence

from loopscope.report.audits.models import ModelView
from loopscope.report.study.table import HeadlineTable, TableCell
from loopscope.results import FATES, ForetoldDepth, Prognosis


def foretold_table(models: Sequence[ModelView]) -> HeadlineTable | None:
    """Return one row per model whose further loops were foretold; None where none was."""
    rows = [_row(model.name, told) for model in models if (told := model.audited.prognosis) is not None]
    groups = (
        ("", ("model", "more loops", "trained to")),
        ("change of the loss, nats per token", ("at twice", "at four times")),
    )
    return HeadlineTable(groups, tuple(rows)) if rows else None


def foretold_reasons(models: Sequence[ModelView]) -> list[tuple[str, str]]:
    """Return model and why, as the table has them."""
    return [(model.name, told.why) for model in models if (told := model.audited.prognosis) is not None]


def _row(name: str, told: Prognosis) -> tuple[TableCell, ...]:
    twice, four_times = told.at if len(told.at) == 2 else (None, None)
    place = FATES.index(told.fate) if told.fate in FATES else len(FATES)
    return (
        TableCell(name, name),
        TableCell(told.fate, place),
        TableCell(str(told.trained_loops), told.trained_loops),
        _change(twice),
        _change(four_times),
    )


def _change(row: ForetoldDepth | None) -> TableCell:
    if row is None or not math.isfinite(row.change):
        return TableCell("–", math.inf)
    return TableCell(f"{row.change:+.3f}", row.change, interval=f"{row.low:+.3f} to {row.high:+.3f}")
