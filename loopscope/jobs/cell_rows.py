"""How far the runs of a study are that others train: read from their folders, for the table."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from loopscope.jobs.study_board import BoardRow
from loopscope.jobs.study_cells import Cell, result_mark
from loopscope.results.run_states import run_state

ENDED = ("finished", "diverged", "failed")


class CellRows:
    """The rows of a study's table. A run that is done is read once: hundreds of them cost nothing to look at."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.cells = cells
        self._done: dict[Path, BoardRow] = {}

    def now(self, trained: Mapping[Path, tuple[str, str]]) -> list[BoardRow]:
        """Return the rows as they are now.

        Args:
            trained: of the runs that somebody has in hand, the state and who has it. A run that is done says so itself.
        """
        rows = []
        for cell in self.cells:
            row = self._done.get(cell.run) or _row(cell, trained.get(cell.run))
            if row.state in ENDED:
                self._done[cell.run] = row
            rows.append(row)
        return rows


def _row(cell: Cell, trained: tuple[str, str] | None) -> BoardRow:
    state, where = trained or ("waiting", "")
    if trained is None and not cell.run.exists():
        return BoardRow(cell.name, state, 0, cell.config.training.steps)
    now = run_state(cell.run)
    done = now.state in ENDED and result_mark(cell.run) != cell.before
    if done and not (trained and now.holder):
        state = now.state
    elif trained is None and now.state == "running":
        state, where = "held", str(now.holder.pid) if now.holder else ""
    elif trained is None and now.state == "interrupted" and now.step:
        state = "interrupted"
    loss = "" if now.loss is None or math.isnan(now.loss) else f"{now.loss:.3f}"
    return BoardRow(cell.name, state, now.step, cell.config.training.steps, loss, where)
