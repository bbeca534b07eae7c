"""The tables of the results page: what was foretold against what came, and what supervision and drawn depth do."""

import math
import statistics
from collections.abc import Callable, Sequence

from benchmarks.environment import markdown
from benchmarks.fates_fit import (
    Predictor,
    accuracy,
    confusion,
    held,
    hurts_after,
    last_difference,
    off_by,
    prognosis,
)
from benchmarks.fates_runs import Run
from loopscope.results import FATES

PARTS = ("fit", "unseen seed", "unseen condition", "unseen family")


def tables(runs: Sequence[Run], larger: Sequence[Run]) -> str:
    """Return all tables of the page, in its order.

    Args:
        runs: of the study that was fitted on, with its test.
        larger: of one that was not.
    """
    fitted = [run for run in runs if run.part == "fit"]
    predictors = _predictors(fitted)
    groups = {
        group: [run for run in larger if run.group == group]
        for group in dict.fromkeys(r.group for r in larger)
    }
    blocks = [
        _scores({**groups, "all": list(larger)}, predictors),
        *(_confusion(name, larger, predictor) for name, predictor in predictors.items()),
        _coverage({**groups, "all": list(larger)}),
        _missed(larger),
        _by_condition(larger),
        _narrow(runs, predictors),
    ]
    return "\n\n".join(blocks)


def _predictors(fitted: Sequence[Run]) -> dict[str, Predictor]:
    return {
        "prognosis": prognosis,
        "last difference goes on": last_difference,
        "holds to K, hurts after": hurts_after(fitted),
    }


def _narrow(runs: Sequence[Run], predictors: dict[str, Predictor]) -> str:
    """The study that was fitted on: its own test."""
    parts = {name: [run for run in runs if run.part == name] for name in PARTS}
    parts = {name: chosen for name, chosen in parts.items() if chosen}
    tested = [run for run in runs if run.part != "fit"]
    blocks = [
        _scores({**parts, "all of the test": tested}, predictors),
        *(_confusion(name, tested, predictor) for name, predictor in predictors.items()),
        _coverage({**parts, "all of the test": tested}),
        _missed(tested),
        _by_condition(runs),
    ]
    return "\n\n".join(blocks)


def _scores(parts: dict[str, list[Run]], predictors: dict[str, Predictor]) -> str:
    rows = [
        [
            part,
            str(len(chosen)),
            *(f"{accuracy(chosen, predictor):.0%}" for predictor in predictors.values()),
            *(f"{off_by(chosen, predictor, 4):.2f}" for predictor in predictors.values()),
        ]
        for part, chosen in parts.items()
    ]
    named = [f"right fates, {name}" for name in predictors] + [f"off at 4K, {name}" for name in predictors]
    return markdown(["runs", "count", *named], rows)


def _confusion(name: str, runs: Sequence[Run], predictor: Predictor) -> str:
    found = confusion(runs, predictor)
    rows = [[told, *(str(found[told][true]) for true in FATES)] for told in FATES]
    return markdown([f"{name} said", *(f"truly {fate}" for fate in FATES)], rows)


def _coverage(parts: dict[str, list[Run]]) -> str:
    rows = [[part, f"{held(chosen, 2):.0%}", f"{held(chosen, 4):.0%}"] for part, chosen in parts.items()]
    return markdown(["runs", "truth in the 80 % interval, 2K", "4K"], rows)


def _missed(runs: Sequence[Run]) -> str:
    rows = []
    for run in runs:
        told = prognosis(run)
        if told.fate != run.fate:
            changes = [f"{told.four_times:+.3f}", f"{run.four_times:+.3f}"]
            rows.append([f"{run.condition}, seed {run.seed}", told.fate, run.fate, *changes])
    if not rows:
        return "None was missed."
    return markdown(["missed", "told", "true", "told at 4K, nats", "true at 4K"], rows)


def _by_condition(runs: Sequence[Run]) -> str:
    """Mean over seeds, and the range where there are several."""
    rows = []
    for condition in dict.fromkeys(run.condition for run in runs):
        seeds = [run for run in runs if run.condition == condition]
        losses: list[Callable[[Run], float]] = [
            lambda run: run.losses[0],
            lambda run: run.losses[run.trained_loops - 1],
            lambda run: run.twice,
            lambda run: run.four_times,
            lambda run: run.rms[run.trained_loops - 1],
            lambda run: run.rms[-1],
        ]
        cells = [_over([of(run) for run in seeds]) for of in losses]
        flops = f"{statistics.mean(run.training_flops for run in seeds) / 1e6:.1f}"
        fates = ", ".join(dict.fromkeys(run.fate for run in seeds))
        rows.append([condition, str(len(seeds)), flops, *cells, fates])
    headings = [
        "condition",
        "seeds",
        "training MFLOPs/token",
        "loss at 1",
        "loss at K",
        "change at 2K",
        "change at 4K",
    ]
    return markdown([*headings, "RMS at K", "RMS at 4K", "fate"], rows)


def _over(values: Sequence[float]) -> str:
    if not all(map(math.isfinite, values)):
        return "not finite"
    mean = f"{statistics.mean(values):.3g}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3g} to {max(values):.3g})"
