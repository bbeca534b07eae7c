"""What one run of the claim's study showed, and where the rows are kept."""

import fcntl
import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fates_runs import write_rows
from loopscope.results import decode

ROWS = Path(__file__).with_name("claim.json")
RATE = 1e-3
"""Learning rate where none is named."""


@dataclass(frozen=True)
class Row:
    """One run that has ended, measured on held-out text."""

    size: str
    start: str
    condition: str
    seed: int
    tokens: int
    precision: str
    parameters: int
    training_flops: float  # of the whole run
    trained_loops: int
    losses: tuple[float, ...]  # nats per token at loop 1 to twice the trained depth, read at depth
    as_trained: tuple[float, ...] | None  # exits of one unroll to the trained depth, where they are others
    bits_per_byte: tuple[float, ...]
    l2_norm: tuple[float, ...]
    date: str
    learning_rate: float = RATE  # the highest of its schedule

    @property
    def run(self) -> tuple[str, str, str, int, int, float]:
        """What tells one run from another."""
        return self.size, self.start, self.condition, self.seed, self.tokens, self.learning_rate


def load_rows() -> list[Row]:
    """Return the committed rows, and those added since."""
    if not ROWS.is_file():
        return []
    return [decode(Row, row) for row in json.loads(ROWS.read_text(encoding="utf-8"))]


def add_row(row: Row) -> None:
    """Add one run's row, unless it has one; calls that run at the same time take turns."""
    with ROWS.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = load_rows()
        known = {other.run for other in rows}  # another call may have measured the same run meanwhile
        if row.run not in known:
            write_rows(ROWS, [*rows, row])
