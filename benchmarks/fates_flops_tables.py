"""The table of the `flops` study: what each condition reaches at the trained depth and past it, and the blind one."""

from collections.abc import Callable, Sequence

from benchmarks.environment import interval_text, markdown
from benchmarks.fates_flops import BLIND
from benchmarks.fates_grid import grid
from benchmarks.fates_runs import Run
from loopscope.results.student_t import over_seeds

Quantity = Callable[[Run], float]
HEADS = (
    *("condition", "seeds", "steps", "loss at 1", "at K", "against blind", "at 4K", "against blind"),
    *("change at 2K", "at 4K", "fate"),
)


def flops_table(runs: Sequence[Run]) -> str:
    """Return one row a condition; means over seeds with their 95 % intervals, differences paired by seed."""
    entries = grid("flops")
    blind = {run.seed: run for run in runs if run.condition == BLIND}
    lines = []
    for condition in dict.fromkeys(run.condition for run in runs):
        seeds = [run for run in runs if run.condition == condition]
        change = entries[condition].change or {}
        lines.append(
            [
                condition,
                str(len(seeds)),
                str(change["training"]["steps"]),
                _over(seeds, first),
                _over(seeds, trained),
                _apart(seeds, blind, trained),
                _over(seeds, deepest),
                _apart(seeds, blind, deepest),
                _over(seeds, lambda run: run.twice, sign=True),
                _over(seeds, lambda run: run.four_times, sign=True),
                ", ".join(dict.fromkeys(run.fate for run in seeds)),
            ]
        )
    return markdown(list(HEADS), lines)


def first(run: Run) -> float:
    """Loss of the first loop's exit."""
    return run.losses[0]


def trained(run: Run) -> float:
    """Loss at the trained depth."""
    return run.losses[run.trained_loops - 1]


def deepest(run: Run) -> float:
    """Loss at four times the trained depth."""
    return run.losses[4 * run.trained_loops - 1]


def _over(runs: Sequence[Run], of: Quantity, sign: bool = False) -> str:
    return interval_text(over_seeds([of(run) for run in runs]), 3, sign)


def _apart(runs: Sequence[Run], others: dict[int, Run], of: Quantity) -> str:
    if runs[0].condition == BLIND:
        return ""
    apart = [of(run) - of(others[run.seed]) for run in runs if run.seed in others]
    return interval_text(over_seeds(apart), 3, sign=True) if apart else ""
