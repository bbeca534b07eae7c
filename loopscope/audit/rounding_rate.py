"""How fast a rounding error changes from loop to loop: a line through its logarithm, token by token.

Every token's error, over what its loops have added, is fitted by exp(growth · loop); its growth has a mean and an
interval over tokens. The size of the start (a large embedding, say) is left out of that ratio: beside it any error
looks small at first and seems to grow. Where the first error is as large as what loops add (a sum that stalls at once),
it is fitted over the state instead. An error that is soon as large as the state has no rate, and grows all the same.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.audit.rounding_errors import RoundedRun
from loopscope.results import RoundedLoop
from loopscope.results.student_t import quantile

SATURATED = 0.5
"""Errors above it are left out of a fit: two directions cannot differ by more than so much, whatever the map does."""
CHANGED = 1.5
"""Factor over the fitted loops below which an error counts as staying."""
TRANSIENT = 4
"""The first so-manieth of the loops is left out of a fit."""
FEWEST_LOOPS = 3
"""Loops that a fit needs."""
LEVELS_OFF = 0.25
"""Growth over the later half of the fitted loops, over that of the earlier, below which an error levels off: half for
one that grows as a power of the loop's number, 1 for one that grows by the same factor."""


@dataclass(frozen=True)
class ErrorRate:
    """What was fitted of one format's errors.

    Attributes:
        growth: of the logarithm, per loop; mean over tokens. None where nothing could be fitted.
        interval: 95 %, over tokens; None for one token.
        power: of the loop's number, where that fits better.
        fitted: loops, the first and the last; None where there are too few.
        over_state: whether it is the error over the state, not over what loops add.
        filled: the loop from which on the error is as large as it can be.
        levels: whether it grew, and hardly does any more.
    """

    growth: float | None
    interval: tuple[float, float] | None
    power: float | None
    fitted: tuple[int, int] | None
    over_state: bool
    filled: int | None
    levels: bool

    @property
    def direction(self) -> int:
        """1 where the error grows, -1 where it shrinks, 0 where it does neither or one cannot be sure."""
        if self.growth is None or self.interval is None or self.fitted is None or self.levels:
            return 0
        if abs(self.growth) * (self.fitted[1] - self.fitted[0]) <= math.log(CHANGED):
            return 0
        return 1 if self.interval[0] > 0 else -1 if self.interval[1] < 0 else 0


def error_rate(run: RoundedRun) -> ErrorRate:
    """Fit what becomes of a format's error."""
    kept = _fitted_loops(run.loops)
    over_state = bool(kept) and run.loops[kept[0] - 1].added > SATURATED
    errors = run.state if over_state else run.added
    growth, interval, power, levels = None, None, None, False
    if len(kept) >= FEWEST_LOOPS:
        fitted = errors[kept[0] - 1 : kept[-1]]
        growth, interval, power = _fit(fitted, kept)
        levels = growth is not None and growth > 0 and _levels_off(fitted, kept)
    ends = None if growth is None else (kept[0], kept[-1])
    return ErrorRate(growth, interval, power, ends, over_state, _filled_at(run.loops), levels)


def _fitted_loops(rows: Sequence[RoundedLoop]) -> list[int]:
    """Loops from the first error on, while it is finite and small enough to grow freely."""
    kept: list[int] = []
    for row in rows:
        if row.added == 0 and not kept:
            continue
        if not math.isfinite(row.added) or row.state > SATURATED or row.overflowed:
            break
        kept.append(row.loop)
    late = kept[len(kept) // TRANSIENT :]  # the first loops leave the start, whatever the map does afterwards
    return late if len(late) >= FEWEST_LOOPS else kept


def _filled_at(rows: Sequence[RoundedLoop]) -> int | None:
    """The loop from which on an error is as large as it can be, where it was clearly smaller in the first one."""
    first = next((row.state for row in rows if row.state > 0), math.inf)
    return next((row.loop for row in rows if row.state > max(SATURATED, CHANGED * first)), None)


def _fit(
    added: Float[Tensor, "loops tokens"], loops: Sequence[int]
) -> tuple[float | None, tuple[float, float] | None, float | None]:
    """Growth per loop, its interval over tokens, and the power of the loop's number where it fits better."""
    whole = added.double()[:, (added > 0).all(dim=0) & torch.isfinite(added).all(dim=0)]
    count = whole.shape[1]
    if count == 0:
        return None, None, None
    logs = whole.log()
    numbers = torch.tensor(loops, dtype=torch.float64)
    slopes, left = _lines(numbers, logs)
    mean = float(slopes.mean())
    powers, left_of_power = _lines(numbers.log(), logs)
    power = float(powers.mean()) if float(left_of_power.sum()) < float(left.sum()) else None
    if count == 1:
        return mean, None, power
    margin = quantile(0.05, count - 1) * float(slopes.std()) / math.sqrt(count)
    return mean, (mean - margin, mean + margin), power


def _levels_off(errors: Float[Tensor, "loops tokens"], loops: Sequence[int]) -> bool:
    """Whether the later half of the loops adds little to what the earlier did."""
    half = len(loops) // 2
    if half < FEWEST_LOOPS:
        return False
    earlier, later = (
        _fit(each, numbers)[0]
        for each, numbers in ((errors[: half + 1], loops[: half + 1]), (errors[half:], loops[half:]))
    )
    return earlier is not None and later is not None and later < LEVELS_OFF * earlier


def _lines(x: Float[Tensor, " loops"], y: Float[Tensor, "loops tokens"]) -> tuple[Tensor, Tensor]:
    """Every token's slope by least squares, and the squares that its line leaves."""
    across = x - x.mean()
    slopes = (across[:, None] * y).sum(dim=0) / across.square().sum()
    left = (y - y.mean(dim=0) - across[:, None] * slopes).square().sum(dim=0)
    return slopes, left
