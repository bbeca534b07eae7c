"""What becomes of a rounding error from loop to loop: dies out, stays, grows or breaks.

How fast it changes is `rounding_rate`'s; what was measured, and why, in sentences `rounding_why`'s.
"""

import math
from collections.abc import Sequence

from loopscope.audit.rounding_errors import RoundedRun
from loopscope.audit.rounding_rate import error_rate
from loopscope.audit.rounding_why import Seen, adds_up, kept_of_a_change, said_of
from loopscope.results import LoopDynamics, RoundedLoop, Rounding, RoundingOutcome
from loopscope.results.rounded_runs import BROKEN, LOST

FORGOTTEN = 0.1
"""Share of a small change that counts as forgotten."""


def judge_rounding(
    name: str,
    run: RoundedRun,
    scales: Sequence[float],
    dynamics: Sequence[LoopDynamics],
    reads_scale: bool | None = None,
) -> Rounding:
    """Return a format's record: its loops, how the error grows, and what that comes to.

    Args:
        name: of the format.
        run: in the format, and how far off.
        scales: mean s_k of the fp32 run, loop by loop.
        dynamics: of the trained loops, where known.
        reads_scale: whether the readout passes on the state's size; None where it is not known.
    """
    rows = run.loops
    lost = next((row.loop for row in rows if not row.excess < math.log1p(LOST)), None)
    broken = next((row for row in rows if _is_broken(row)), None)
    rate = error_rate(run)
    outcome: RoundingOutcome = "stays"
    growth, interval, power = rate.growth, rate.interval, rate.power
    kept = kept_of_a_change(dynamics, scales)
    if broken is not None:
        outcome = "breaks"
    elif rate.direction < 0:
        outcome = "dies out"
    elif rate.direction > 0:
        outcome = "stays" if _soon_forgotten(rows, kept) else "grows"
    elif rate.filled is not None:
        outcome, growth, interval, power = "grows", None, None, None
    seen = Seen(name, outcome, run, rate, scales, dynamics, kept, lost, broken, reads_scale)
    return Rounding(
        format=name,
        outcome=outcome,
        why=said_of(seen),
        loops=rows,
        growth=growth,
        growth_interval=interval,
        power=power,
        lost_at=lost,
        broken_at=None if broken is None else broken.loop,
        tokens=run.added.shape[1],
    )


def _soon_forgotten(rows: Sequence[RoundedLoop], kept: float | None) -> bool:
    """Whether an error only adds up, in a map that leaves next to nothing of it by half of the loops."""
    return kept is not None and kept ** (len(rows) / 2) < FORGOTTEN and adds_up(rows)


def _is_broken(row: RoundedLoop) -> bool:
    return row.overflowed > 0 or row.emptied > 0 or not row.excess < math.log1p(BROKEN)
