"""What becomes of a rounding error from loop to loop: dies out, stays, grows or breaks, and a sentence of why.

Every token's error, over what its loops have added, is fitted by exp(growth · loop); its growth has a mean and an
interval over tokens. The size of the start (a large embedding, say) is left out of that ratio: beside it any error
looks small at first and seems to grow. Where the first error is as large as what loops add (a sum that stalls at once),
it is fitted over the state instead. An error that is soon as large as the state has no rate, and grows all the same.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.audit.rounding_errors import RoundedRun
from loopscope.results import LoopDynamics, RoundedLoop, Rounding, RoundingOutcome
from loopscope.results.rounded_runs import BROKEN, LOST
from loopscope.results.student_t import quantile

SATURATED = 0.5
"""Errors above it are left out of a fit: two directions cannot differ by more than so much, whatever the map does."""
ROUND_THE_STATE = ("bf16", "fp16")
"""Formats that the state itself is in."""
ADDS_UP = 1.0
"""Error at the last loop, over as many of loop 1's as there are loops, up to which growth is that of adding up. Of 69
trained models 68 stayed below 0.6, whatever the loop map's spectral radius; one whose map expands came to 12 and
more (docs/results)."""
CHANGED = 1.5
"""Factor over the fitted loops below which an error counts as staying."""
TRANSIENT = 4
"""The first so-manieth of the loops is left out of a fit."""
FEWEST_LOOPS = 3
"""Loops that a fit needs."""
FORGETS = 0.97
"""Share of a small change across the state, over its size, up to which a loop counts as shrinking it."""
STILL_GROWS = 1.1
"""Growth of scale over the second half of the loops from which it counts as growing on."""
GEOMETRIC = 2.0
"""Growth of scale in the last loop, over that in a mean one, from which it grows by a factor and not by an amount."""


def judge_rounding(
    name: str, run: RoundedRun, scales: Sequence[float], dynamics: Sequence[LoopDynamics]
) -> Rounding:
    """Return a format's record: its loops, how the error grows, and what that comes to.

    Args:
        run: in the format, and how far off.
        scales: mean s_k of the fp32 run, loop by loop.
        dynamics: of the trained loops, where known.
    """
    rows = run.loops
    lost = next((row.loop for row in rows if not row.excess < math.log1p(LOST)), None)
    broken = next((row for row in rows if _is_broken(row)), None)
    kept = _fitted_loops(rows)
    over_state = bool(kept) and rows[kept[0] - 1].added > SATURATED
    errors = run.state if over_state else run.added
    growth, interval, power = (
        _fit(errors[kept[0] - 1 : kept[-1]], kept) if len(kept) >= FEWEST_LOOPS else (None,) * 3
    )
    filled = _filled_at(rows)
    outcome: RoundingOutcome = "stays"
    if broken is not None:
        outcome = "breaks"
    elif growth is not None and interval is not None and abs(growth) * (len(kept) - 1) > math.log(CHANGED):
        if interval[0] > 0:
            outcome = "grows"
        elif interval[1] < 0:
            outcome = "dies out"
    if outcome == "stays" and filled is not None:
        outcome, growth, interval, power = "grows", None, None, None
    rate = _rate(outcome, growth, power, over_state, filled)
    unsaid = []
    if not run.differs():
        unsaid = ["The format holds these numbers."]
    elif growth is None and filled is None:
        unsaid = ["Too few loops have an error to say what becomes of it."]
    elif growth is not None and interval is None:
        unsaid = ["One token does not say how sure that is."]
    return Rounding(
        format=name,
        outcome=outcome,
        why=" ".join(
            [
                _what(rows, rate, lost, broken),
                *unsaid,
                *_because(outcome, scales, dynamics, rows, broken, name),
            ]
        ),
        loops=rows,
        growth=growth,
        growth_interval=interval,
        power=power,
        lost_at=lost,
        broken_at=None if broken is None else broken.loop,
        tokens=run.added.shape[1],
    )


def _is_broken(row: RoundedLoop) -> bool:
    return row.overflowed > 0 or row.emptied > 0 or not row.excess < math.log1p(BROKEN)


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


def _lines(x: Float[Tensor, " loops"], y: Float[Tensor, "loops tokens"]) -> tuple[Tensor, Tensor]:
    """Every token's slope by least squares, and the squares that its line leaves."""
    across = x - x.mean()
    slopes = (across[:, None] * y).sum(dim=0) / across.square().sum()
    left = (y - y.mean(dim=0) - across[:, None] * slopes).square().sum(dim=0)
    return slopes, left


def _rate(
    outcome: RoundingOutcome, growth: float | None, power: float | None, over_state: bool, filled: int | None
) -> str:
    """How fast an error changes, in words that go on a sentence; none where it does not."""
    if outcome not in ("grows", "dies out"):
        return ""
    if growth is None:
        return f"; it is as large as the state from loop {filled} on, too soon to say how fast it grows"
    over = "" if over_state else "over what the loops add, "
    if power is not None:
        return f"; {over}the error goes as loop^{power:.1f}"
    return f"; {over}the error {'doubles' if growth > 0 else 'halves'} every {math.log(2) / abs(growth):.1f} loops"


def _what(rows: Sequence[RoundedLoop], rate: str, lost: int | None, broken: RoundedLoop | None) -> str:
    """What was measured, in a sentence."""
    first, last = rows[0], rows[-1]
    off = f"H is {_share(first.state)} off at loop 1 and {_share(last.state)} at loop {last.loop}"
    if broken is not None:
        if broken.overflowed:
            return f"{_share(broken.overflowed)} of the state is not finite from loop {broken.loop} on."
        if broken.emptied:
            share = _share(broken.emptied)
            return f"The readout of {share} of the tokens is zeros at loop {broken.loop}, without an error."
        if not math.isfinite(broken.excess):
            return f"The cross-entropy of exit {broken.loop} is not finite; {off}."
        return f"Exit {broken.loop} has lost {_share(math.expm1(broken.excess))} of its perplexity; {off}."
    return f"{off}{rate}. {_costs(rows, lost)}"


def _costs(rows: Sequence[RoundedLoop], lost: int | None) -> str:
    """Which exits lose 1 % of perplexity or more, in a sentence."""
    last = rows[-1].loop
    if lost is None:
        return f"No exit to loop {last} loses 1 % of perplexity."
    losing = [row.loop for row in rows if not row.excess < math.log1p(LOST)]
    if lost == last:
        return f"Exit {last} loses 1 % of perplexity or more."
    if len(losing) == last - lost + 1:
        return f"From loop {lost} on the exit loses 1 % of perplexity or more."
    return f"{len(losing)} of {last} exits lose 1 % of perplexity or more, the first at loop {lost}."


def _because(
    outcome: RoundingOutcome,
    scales: Sequence[float],
    dynamics: Sequence[LoopDynamics],
    rows: Sequence[RoundedLoop],
    broken: RoundedLoop | None,
    name: str,
) -> list[str]:
    """Why, as far as scale and the loop map say."""
    sentences = []
    angular = max((entry.angular for entry in dynamics), default=None)
    kept = _kept_of_a_change(dynamics, scales)
    grown = scales[-1] / scales[0] if scales[0] else math.nan
    if all(row.state == 0 for row in rows):
        return []
    if outcome in ("dies out", "stays") and grown > 2 and _grows_by_amounts(scales):
        sentences.append(
            f"The scale grows {grown:.3g} times while what a loop adds does not: the direction stiffens, and an error "
            "keeps its share of what loops add."
        )
    elif outcome in ("dies out", "stays") and kept is not None and kept < FORGETS:
        sentences.append(
            f"Across the state a loop leaves {kept:.2f} of a small change at most, for its size: errors are forgotten "
            "as new ones come."
        )
    elif broken is not None and _is_coarse(broken, rows[0]):
        sentences.append("It is as far off at loop 1: that is the format, not the loops.")
    elif outcome in ("grows", "breaks") and _adds_up(rows) and not _out_of_range(rows):
        what = "H is rounded anew" if name in ROUND_THE_STATE else "The same error is made again"
        sentences.append(
            f"{what} in every loop, and that adds up: over what loops add, the error grows no more than "
            "their number."
        )
    elif outcome in ("grows", "breaks") and angular is not None and angular > 1 and not _out_of_range(rows):
        sentences.append(
            f"Across the state a loop stretches a small change (up to {angular:.2f} times), so an error is carried on "
            "and made larger: it grows more than the number of loops."
        )
    stalled = max(rows, key=lambda row: row.stalled)
    if stalled.stalled > 0.5:
        sentences.append(
            f"At loop {stalled.loop} {_share(stalled.stalled)} of the channels no longer move in {name}: what a loop "
            "adds is below half of the last digit."
        )
    return sentences


def _kept_of_a_change(dynamics: Sequence[LoopDynamics], scales: Sequence[float]) -> float | None:
    """The largest share of a small change across the state that a loop leaves, for what it leaves of the state."""
    known = [
        entry.angular * scales[entry.loop - 1] / scales[entry.loop]
        for entry in dynamics
        if entry.loop < len(scales) and scales[entry.loop] > 0
    ]
    return max(known, default=None)


def _grows_by_amounts(scales: Sequence[float]) -> bool:
    """Whether a scale goes on growing, by about the same amount in every loop, so that loops count less and less."""
    if len(scales) < FEWEST_LOOPS or scales[-1] < STILL_GROWS * scales[len(scales) // 2]:
        return False
    return scales[-1] - scales[-2] < GEOMETRIC * (scales[-1] - scales[0]) / (len(scales) - 1)


def _out_of_range(rows: Sequence[RoundedLoop]) -> bool:
    """Whether a format has no numbers for what is in it, whatever a loop does to an error."""
    return bool(rows[-1].overflowed) or any(row.emptied > 0 for row in rows)


def _adds_up(rows: Sequence[RoundedLoop]) -> bool:
    """Whether as many equal errors as there are loops would be as large as what was measured at the last.

    The last before an error is as large as it can be: from there on it looks as if it grew no more.
    """
    free = [row for row in rows if math.isfinite(row.added) and row.state <= SATURATED]
    if not free or free[0].loop == free[-1].loop or (len(free) < len(rows) and len(free) < FEWEST_LOOPS):
        return False
    first, last = free[0], free[-1]
    return 0 < last.added <= ADDS_UP * first.added * last.loop / first.loop


def _is_coarse(broken: RoundedLoop, first: RoundedLoop) -> bool:
    """Whether a format was about as far off at loop 1 as where it broke."""
    return not (broken.overflowed or broken.emptied) and broken.state < CHANGED * first.state


def _share(value: float) -> str:
    if not math.isfinite(value):
        return "without bound"
    return f"{100 * value:,.0f} %" if value >= 0.095 else f"{100 * value:.2g} %"
