"""What a rounding audit says of one format: what was measured, and why it is so, as far as scale and the map say."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from loopscope.audit.rounding_errors import RoundedRun
from loopscope.audit.rounding_rate import CHANGED, FEWEST_LOOPS, SATURATED, ErrorRate
from loopscope.results import LoopDynamics, RoundedLoop, RoundingOutcome
from loopscope.results.rounded_runs import LOST

ROUND_THE_STATE = ("bf16", "fp16")
"""Formats that the state itself is in."""
ADDS_UP = 1.0
"""Error at the last loop, over as many of loop 1's as there are loops, up to which growth is that of adding up. Of 69
trained models 68 stayed below 0.6, whatever the loop map's spectral radius; one whose map expands came to 12 and
more (docs/results)."""
FORGETS = 0.97
"""Share of a small change across the state, over its size, up to which a loop counts as shrinking it."""
STILL_GROWS = 1.1
"""Growth of scale over the second half of the loops from which it counts as growing on."""
GEOMETRIC = 2.0
"""Growth of scale in the last loop, over that in a mean one, from which it grows by a factor and not by an amount."""
MUCH_GROWN = 2.0
"""Growth of scale over all loops from which it is worth a word."""


@dataclass(frozen=True)
class Seen:
    """All that a sentence may rest on.

    Attributes:
        name: of the format.
        outcome: what becomes of its error.
        run: every loop in the format.
        rate: how fast its error changes.
        scales: mean s_k of the fp32 run.
        dynamics: of the trained loops, where known.
        kept: the share of a small change that a loop leaves, `kept_of_a_change`.
        lost: the first loop whose exit loses 1 % of perplexity.
        broken: the first loop that is not finite, empty, or loses 10 %.
        reads_scale: whether the readout passes on the state's size; None where it is not known.
    """

    name: str
    outcome: RoundingOutcome
    run: RoundedRun
    rate: ErrorRate
    scales: Sequence[float]
    dynamics: Sequence[LoopDynamics]
    kept: float | None
    lost: int | None
    broken: RoundedLoop | None
    reads_scale: bool | None

    @property
    def rows(self) -> Sequence[RoundedLoop]:
        """Every loop in the format."""
        return self.run.loops

    @property
    def grown(self) -> float:
        """How many times as large the scale is at the last loop as at the first."""
        return self.scales[-1] / self.scales[0] if self.scales[0] else math.nan


def said_of(seen: Seen) -> str:
    """Return sentences: how far off H is, what exits lose, and why."""
    return " ".join([_measured(seen), *_unsaid(seen), *_reasons(seen)])


def _measured(seen: Seen) -> str:
    """How far off H is, what becomes of that, and what exits lose, in a sentence or two."""
    first, last, broken = seen.rows[0], seen.rows[-1], seen.broken
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
    return f"{off}{_of_added(seen)}{_changing(seen)}. {_costs(seen)}"


def _of_added(seen: Seen) -> str:
    """What the outcome rests on: the error over what loops have added, where it was fitted."""
    rate = seen.rate
    if rate.over_state or rate.fitted is None or not seen.run.differs():
        return ""
    first, last = (seen.rows[loop - 1] for loop in rate.fitted)
    over = "of what the loops have added that is"
    return f"; {over} {_share(first.added)} at loop {first.loop} and {_share(last.added)} at loop {last.loop}"


def _changing(seen: Seen) -> str:
    """How fast an error changes, in words that go on a sentence; none where it does not, or adds up."""
    rate = seen.rate
    if seen.outcome not in ("grows", "dies out"):
        return ""
    if not rate.direction or rate.growth is None:
        return f"; it is as large as the state from loop {rate.filled} on, too soon to say how fast it grows"
    joint = "; it" if rate.over_state else ", and"
    if rate.power is not None:
        return f"{joint} goes as loop^{rate.power:.1f}"
    if seen.outcome == "grows" and adds_up(seen.rows):
        return ""
    return f"{joint} {'doubles' if rate.growth > 0 else 'halves'} every {math.log(2) / abs(rate.growth):.1f} loops"


def _costs(seen: Seen) -> str:
    """Which exits lose 1 % of perplexity or more, in a sentence."""
    last, lost = seen.rows[-1].loop, seen.lost
    if lost is None:
        return f"No exit to loop {last} loses 1 % of perplexity."
    losing = [row.loop for row in seen.rows if not row.excess < math.log1p(LOST)]
    if lost == last:
        return f"Exit {last} loses 1 % of perplexity or more."
    if len(losing) == last - lost + 1:
        return f"From loop {lost} on the exit loses 1 % of perplexity or more."
    if len(losing) == 1:
        return f"Exit {lost} alone loses 1 % of perplexity or more."
    return f"{len(losing)} of {last} exits lose 1 % of perplexity or more, the first at loop {lost}."


def _unsaid(seen: Seen) -> Iterator[str]:
    """What cannot be said of the error, and why."""
    rate = seen.rate
    if not seen.run.differs():
        yield "The format holds these numbers."
    elif rate.growth is None and rate.filled is None:
        yield "Too few loops have an error to say what becomes of it."
    elif rate.growth is not None and rate.interval is None:
        yield "One token does not say how sure that is."


def _reasons(seen: Seen) -> Iterator[str]:
    """Why, as far as scale and the loop map say."""
    if not seen.run.differs():
        return
    lasting = seen.outcome in ("dies out", "stays")
    growing = seen.outcome in ("grows", "breaks") and not _out_of_range(seen.rows)
    angular = max((entry.angular for entry in seen.dynamics), default=None)
    if lasting and seen.grown > MUCH_GROWN and _grows_by_amounts(seen.scales):
        what = "an error keeps its share" if seen.outcome == "stays" else "an error becomes a smaller share"
        yield (
            f"The scale grows {seen.grown:.3g} times while what a loop adds does not: the direction stiffens, and "
            f"{what} of what loops add."
        )
    elif lasting and seen.kept is not None and seen.kept < FORGETS:
        yield (
            f"Across the state a loop leaves {seen.kept:.2f} of a small change at most, for its size: errors are "
            "forgotten as new ones come."
        )
    elif seen.broken is not None and _is_coarse(seen.broken, seen.rows[0]):
        yield "It is as far off at loop 1: that is the format, not the loops."
    elif growing and adds_up(seen.rows) and (seen.rate.filled is None or seen.broken is not None):
        what = "H is rounded anew" if seen.name in ROUND_THE_STATE else "The same error is made again"
        yield (
            f"{what} in every loop, and that adds up: over what loops add, the error grows no more than "
            "their number."
        )
    elif growing and angular is not None and angular > 1:
        yield (
            f"Across the state a loop stretches a small change (up to {angular:.2f} times), so an error is carried on "
            "and made larger: it grows more than the number of loops."
        )
    elif seen.outcome == "stays" and seen.rate.levels:
        yield "It rises in the first loops and levels off."
    elif seen.outcome == "stays" and seen.rate.interval is not None:
        yield "Beside what loops add, that is too little to count as a change."
    if (
        seen.lost is not None
        and seen.reads_scale
        and seen.grown > MUCH_GROWN
        and not _out_of_range(seen.rows)
    ):
        yield (
            f"The scale grows {seen.grown:.3g} times and the readout reads it: what H is off by reaches exits as large."
        )
    yield from _of_stalled(seen)


def _of_stalled(seen: Seen) -> Iterator[str]:
    stalled = max(seen.rows, key=lambda row: row.stalled)
    if stalled.stalled > 0.5:
        yield (
            f"At loop {stalled.loop} {_share(stalled.stalled)} of the channels no longer move in {seen.name}: what a "
            "loop adds is below half of the last digit."
        )


def kept_of_a_change(dynamics: Sequence[LoopDynamics], scales: Sequence[float]) -> float | None:
    """Return the largest share of a change across the state that a loop leaves, over what it leaves of the state."""
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


def adds_up(rows: Sequence[RoundedLoop]) -> bool:
    """Return whether as many equal errors as there are loops would be as large as what was measured at the last.

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
