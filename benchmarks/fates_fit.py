"""Fit the prognosis of depth on half of the study's runs, and test it on the others, beside two plain predictors.

The fit is a weighted least-squares line without a constant (a model that does not move does not change), per depth;
weights are one over the movement, so that every run counts by its relative error. The interval's width is a quantile of
what was left over when each condition was left out of the fit in turn.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.fates_runs import AUDIT_TOKENS, Run
from loopscope.evaluation.depth.prognosis import judge_signs
from loopscope.evaluation.depth.prognosis_rule import (
    UNIT,
    Constants,
    half_width,
    movements,
    signed_log,
    weighed,
)
from loopscope.results import FATES, Fate, Prognosis, fate_of

NAMES = ("loss", "moved")
"""Of `movements`, what the line has a coefficient for."""
LEVEL = 0.8
TIMES = (2, 4)
LARGEST = 10.0
"""Nats that a change counts as at most: where a loss is not finite, say."""
SPREADS = (1.0, 2.0, 4.0)
"""Of an interval's floor. None below 1: hardly a run that is fitted on settles, so the fit cannot tell how far off such
runs are, and losses on two texts differ by about so much."""
CONSTANTS = Path("loopscope/evaluation/depth/prognosis_constants.py")


def truth(run: Run, times: int) -> float:
    """What `times` the trained depth did to the loss, in nats."""
    return min(run.change(times * run.trained_loops), LARGEST)


def told_movements(run: Run, times: int, steady: bool = False) -> dict[str, float]:
    """What a run's signs say of it, before any fit."""
    return movements(run.signs, run.trained_loops, times * run.trained_loops, steady)


def fit(runs: Sequence[Run], times: int, names: Sequence[str]) -> Constants:
    """Fit coefficients and the width of the interval for one depth."""
    best: tuple[float, Constants] | None = None
    lines = {
        condition: _line([run for run in runs if run.condition != condition], times, names)
        for condition in {run.condition for run in runs}
    }
    whole, steady = _line(runs, times, names), _line(runs, times, names, steady=True)
    for spread in SPREADS:
        left = [
            _left_over(run, times, Constants(lines[run.condition], {}, spread, 1.0, LEVEL)) for run in runs
        ]
        found = Constants(whole, steady, spread, _quantile(left), LEVEL)
        score = sum(_interval_score(run, times, found) for run in runs)
        if best is None or score < best[0]:
            best = score, found
    assert best is not None
    return best[1]


def _line(runs: Sequence[Run], times: int, names: Sequence[str], steady: bool = False) -> dict[str, float]:
    rows = [told_movements(run, times, steady) for run in runs]
    weights = np.array([1 / (UNIT / 2 + max(map(abs, row.values()))) for row in rows])
    x = np.array([[row[name] for name in names] for row in rows]) * weights[:, None]
    y = np.array([truth(run, times) for run in runs]) * weights
    solved = np.linalg.lstsq(x, y, rcond=None)[0]
    return {name: round(float(value), 4) for name, value in zip(names, solved, strict=True)}


def _fitted_interval(run: Run, times: int, constants: Constants) -> tuple[float, float, float]:
    """Middle and half width of the first way's interval without chance, and the truth, as signed logarithms."""
    moved = told_movements(run, times)
    middle = signed_log(weighed(moved, constants.coefficients))
    return middle, half_width(moved, constants), signed_log(truth(run, times))


def _left_over(run: Run, times: int, constants: Constants) -> float:
    """How far the truth is from the middle, in half widths."""
    middle, half, true = _fitted_interval(run, times, constants)
    return abs(true - middle) / half


def quantile_place(count: int) -> int:
    """Of a conformal interval: the place in order that leaves one more than the level's share at or below it."""
    return min(count, math.ceil((count + 1) * LEVEL)) - 1


def _quantile(left: Sequence[float]) -> float:
    return round(sorted(left)[quantile_place(len(left))], 4)


def _interval_score(run: Run, times: int, constants: Constants) -> float:
    """Winkler's: how wide the interval is, and how far the truth lies outside, as signed logarithms."""
    middle, half, true = _fitted_interval(run, times, constants)
    return 2 * half + 2 / (1 - LEVEL) * max(abs(true - middle) - half, 0.0)


@dataclass(frozen=True)
class Told:
    """What one predictor says of one run."""

    fate: Fate
    twice: float
    four_times: float


Predictor = Callable[[Run], Told]


def judged(run: Run, tokens: int = AUDIT_TOKENS) -> Prognosis:
    """What the shipped rule says of a run whose signs were measured on so many tokens."""
    return judge_signs(list(run.signs), run.trained_loops, run.scale_blind, tokens)


def prognosis(run: Run) -> Told:
    """The prognosis as it is shipped."""
    told = judged(run)
    changes = [row.change for row in told.at] or [LARGEST, LARGEST]
    return Told(told.fate, *changes)


def last_difference(run: Run) -> Told:
    """The last difference of the loss goes on as it is."""
    signs, trained = run.signs, run.trained_loops
    if len(signs) < trained + 2:
        return Told("breaks", LARGEST, LARGEST)
    step = signs[trained + 1].cross_entropy - signs[trained].cross_entropy
    so_far = signs[trained + 1].cross_entropy - signs[trained - 1].cross_entropy
    twice, four = (so_far + step * (times * trained - trained - 2) for times in TIMES)
    return Told(fate_of(twice, four), twice, four)


def hurts_after(fitted: Sequence[Run]) -> Predictor:
    """Holds to K and hurts after: every model loses what the fitted half lost in the middle."""
    middle = [float(np.median([truth(run, times) for run in fitted])) for times in TIMES]
    hurt = Counter(run.fate for run in fitted if run.fate in ("drifts", "breaks"))
    fate: Fate = hurt.most_common(1)[0][0] if hurt else "drifts"
    return lambda run: Told(fate, middle[0], middle[1])


def accuracy(runs: Sequence[Run], predictor: Predictor) -> float:
    return sum(predictor(run).fate == run.fate for run in runs) / len(runs)


def off_by(runs: Sequence[Run], predictor: Predictor, times: int) -> float:
    """Median distance of foretold and true change, as signed logarithms: 0.7 is a factor of 2."""
    place = {2: "twice", 4: "four_times"}[times]
    apart = [
        abs(signed_log(min(getattr(predictor(run), place), LARGEST)) - signed_log(truth(run, times)))
        for run in runs
    ]
    return float(np.median(apart))


def confusion(runs: Sequence[Run], predictor: Predictor) -> dict[Fate, Counter[Fate]]:
    """Foretold fates, each with how many of which true ones."""
    found: dict[Fate, Counter[Fate]] = {fate: Counter() for fate in FATES}
    for run in runs:
        found[predictor(run).fate][run.fate] += 1
    return found


def held(runs: Sequence[Run], times: int) -> float:
    """Share of runs whose truth lies in the interval."""
    inside = []
    for run in runs:
        row = next(row for row in judged(run).at if row.loops == times * run.trained_loops)
        inside.append(row.low <= run.change(row.loops) <= row.high)
    return sum(inside) / len(inside)


def fitted(runs: Sequence[Run]) -> dict[int, Constants]:
    """Fit both depths on the runs that are there to be fitted on."""
    chosen = [run for run in runs if run.part == "fit" and len(run.signs) >= run.trained_loops + 2]
    return {times: fit(chosen, times, NAMES) for times in TIMES}


def constants_module(runs: Sequence[Run]) -> str:
    """Return the source of the module with the constants."""
    chosen = [run for run in runs if run.part == "fit"]
    lines = [
        '"""What was fitted on trained models: made by `python -m benchmarks.fates --fit`, not by hand.',
        "",
        f"Of {len(runs)} runs, {len(chosen)} were fitted on and {len(runs) - len(chosen)} kept for the test.",
        '"""',
        "",
        "from loopscope.evaluation.depth.prognosis_rule import Constants",
        "",
        "FITTED = {",
    ]
    for times, found in fitted(runs).items():
        lines.append(
            f"    {times}: Constants(\n        {found.coefficients!r},\n        steady={found.steady!r},\n"
            f"        spread={found.spread},\n        width={found.width},\n        level={found.level},\n    ),"
        )
    return "\n".join([*lines, "}", '"""By times the trained depth."""', ""]).replace("'", '"')
