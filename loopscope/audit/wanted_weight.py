"""The weight of a norm penalty for a size that is wanted, from the balance that a penalised run stands in.

At rest the pull P equals what cross-entropy wants, c / S (`resting_scale`): c = P S, whatever penalties there are. A
norm penalty rests at S* with w = c / (2 S*³). On the way from S to S* cross-entropy gives up the integral of its want
over log S, c (1 / S* - 1 / S): at most, since a run that has not come to rest has not paid for its size.
"""

import math
from typing import Any

from loopscope.audit.resting_scale import BALANCED
from loopscope.results import RestingScale, WantedScale

SIZE_ERROR = 2.0
"""Factor within which sizes were where the law said, over weights a hundred times apart (docs/results)."""
SMALLER_BY = (1.4, 2.6)
"""By which factors a size was smaller at the ends of runs for ten times the weight, from 1e-4 on; the law says 2.15."""
WANTED = (1e-6, 1e12)
"""Norms that may be asked for: any that training can leave, and far from where a weight leaves fp64."""
TRIED = 1e4
"""How many times apart the weights are that were tried."""


def check_wanted_norm(value: Any) -> float | None:
    """Return the L2 norm that is wanted over all loops, or None for none.

    Raises:
        ValueError: not a number that a state's norm may be.
    """
    if value is None:
        return None
    least, most = WANTED
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ValueError(
            f"wanted_norm is {value!r}; it is the L2 norm that H is to have over all loops, a number from {least:g} to "
            f"{most:g}"
        )
    return float(value)


def wanted_scale(found: RestingScale, l2_norm: float) -> WantedScale:
    """Return the weight of a norm penalty that leaves H at an L2 norm over all loops, and what that costs at most.

    Args:
        found: of a run under penalties. The new penalty takes the place of those that it was trained with.
    """
    factor = l2_norm / found.l2_norm if found.l2_norm else math.nan
    if found.status != "held by penalties" or not found.pull > BALANCED or not math.isfinite(factor):
        return WantedScale(l2_norm, None, None, None, f"For a norm of {l2_norm:,.4g}: {_no_weight(found)}")
    balance = found.pull * found.rms
    rest = found.rms * factor
    weight = balance / (2 * rest**3)
    own = balance / (2 * found.rms**3)  # of the one norm penalty that would pull as hard
    by_decades = [own * 10 ** (-math.log(factor) / math.log(smaller)) for smaller in SMALLER_BY]
    low = min(weight / SIZE_ERROR**3, *by_decades)
    high = max(weight * SIZE_ERROR**3, *by_decades)
    cost = max(balance * (1 / rest - 1 / found.rms), 0.0)  # a larger state gives nothing up
    why = (
        f"For a norm of {l2_norm:,.4g} over all loops, from {found.l2_norm:,.3g} now, trained as long: a norm penalty "
        f"of weight {weight:.2g} ({low:.1g} to {high:.1g}) in place of its own"
        + (f", for at most {cost:.2g} nats of cross-entropy." if cost > 0 else ".")
    )
    if not 1 / TRIED <= weight / own <= TRIED:
        why += f" No two weights so far apart were tried ({TRIED:,.0f} times at most): it says which way, not how far."
    return WantedScale(l2_norm, weight, (low, high), cost, why)


def _no_weight(found: RestingScale) -> str:
    match found.status:
        case "held by nothing":
            return (
                "no weight is named, since nothing pulls yet and what cross-entropy would pay is not seen. Train once "
                "with a norm penalty (0.01, say) and audit that run for it."
            )
        case "removed":
            return "no penalty is needed, since the scale is removed between loops."
        case "held by penalties":
            if found.pull < -BALANCED:
                return (
                    "no weight is named, since penalties push the scale up: it is below the anchor's target."
                )
            return (
                "no weight is named, since penalties do not pull where it is: it is at the anchor's target."
            )
        case _:
            return "no weight is named, since penalties are not what holds it: a small one changes little."
