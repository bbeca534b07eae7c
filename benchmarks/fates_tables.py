"""The tables of the results page: what was foretold against what came, and what supervision and drawn depth do."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

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
from benchmarks.fates_runs import Run, asked_at
from loopscope.results import FATES

PARTS = ("fit", "unseen seed", "unseen condition", "unseen family")


SHALLOW = 2
"""Half of the trained depth of most runs: what is told of one that is asked there."""


def tables(runs: Sequence[Run], **unfitted: Sequence[Run]) -> str:
    """Return all tables of the pages, in their order.

    Args:
        runs: of the study that was fitted on, with its test.
        unfitted: of each study that was not, by name.
    """
    named = list(unfitted.items())
    predictors: dict[str, Predictor] = {
        "prognosis": prognosis,
        "last difference goes on": last_difference,
        "holds to K, hurts after": hurts_after([run for run in runs if run.part == "fit"]),
    }
    parts = {name: chosen for name in PARTS if (chosen := [run for run in runs if run.part == name])}
    tested = [run for run in runs if run.part != "fit"]
    asked = {f"{name}, asked at {SHALLOW}": _asked(study) for name, study in (("narrow", runs), *named)}
    shallow = {name: chosen for name, chosen in asked.items() if chosen}
    blocks = [
        *(block for _, study in named for block in _of_study(_groups(study), study, study, predictors)),
        *_of_study({**parts, "all of the test": tested}, tested, runs, predictors),
        _scores(shallow, predictors),
        _coverage(shallow),
        *(_confusion(f"{name}: prognosis", study, prognosis) for name, study in shallow.items()),
    ]
    return "\n\n".join(blocks)


def _asked(runs: Sequence[Run]) -> list[Run]:
    """Runs as if half of their depth were theirs, of those whose depth is twice `SHALLOW`."""
    return [
        asked_at(run, SHALLOW)
        for run in runs
        if run.trained_loops == 2 * SHALLOW and len(run.signs) >= SHALLOW + 2
    ]


def _groups(runs: Sequence[Run]) -> dict[str, Sequence[Run]]:
    """What runs were made for, in their order, and all of them."""
    names = dict.fromkeys(run.group for run in runs)
    return {**{name: [run for run in runs if run.group == name] for name in names}, "all": runs}


def _of_study(
    parts: Mapping[str, Sequence[Run]],
    tested: Sequence[Run],
    runs: Sequence[Run],
    predictors: Mapping[str, Predictor],
) -> list[str]:
    return [
        _scores(parts, predictors),
        *(_confusion(name, tested, predictor) for name, predictor in predictors.items()),
        _coverage(parts),
        _missed(tested),
        _by_condition(runs),
    ]


def _scores(parts: Mapping[str, Sequence[Run]], predictors: Mapping[str, Predictor]) -> str:
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


def _coverage(parts: Mapping[str, Sequence[Run]]) -> str:
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
