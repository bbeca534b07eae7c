"""How far the runs of a study are that others train: read from their folders, for the table."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from loopscope.jobs.study_board import BoardRow
from loopscope.jobs.study_cells import Cell, result_mark
from loopscope.results.run_states import run_state


def cell_rows(cells: Sequence[Cell], trained: Mapping[Path, tuple[str, str]]) -> list[BoardRow]:
    """Return the rows of a study's table.

    Args:
        trained: of the runs that somebody has in hand, the state and who has it. A run that is done says so itself.
    """
    return [_row(cell, trained.get(cell.run)) for cell in cells]


def _row(cell: Cell, trained: tuple[str, str] | None) -> BoardRow:
    now = run_state(cell.run)
    done = now.state in ("finished", "diverged", "failed") and result_mark(cell.run) != cell.before
    state, where = trained or ("waiting", "")
    if done and not (trained and now.holder):
        state = now.state
    elif trained is None and now.state == "running":
        state, where = "held", str(now.holder.pid) if now.holder else ""
    elif trained is None and now.state == "interrupted" and now.step:
        state = "interrupted"
    loss = "" if now.loss is None or math.isnan(now.loss) else f"{now.loss:.3f}"
    return BoardRow(cell.name, state, now.step, cell.config.training.steps, loss, where)
