"""Is looping worth it: a looped model at its trained depth beside models that do not loop.

Baselines are conditions by the names `unlooped` (the same parameters, used once) and `unlooped-deep` (K times the
layers, none shared: the same FLOPs), alone or under a condition (`unlooped:dense/raw`). Alone, one is set beside every
looped condition; under a condition, beside that one. Names say what was meant; the figures are held against it, and a
baseline that is not matched (a family with layers of its own before the loop, say) is left out and named.
"""

from collections.abc import Sequence
from typing import Literal

from loopscope.evaluation.compare.condition import Condition

Role = Literal["same parameters", "same FLOPs"]
MATCH_TOLERANCE = 0.02
"""How far parameters or FLOPs may be from the looped model's: gates and norms of a condition fit in."""

_ROLES: dict[str, Role] = {"unlooped": "same parameters", "unlooped-deep": "same FLOPs"}


def baseline_role(name: str) -> Role | None:
    """Return what a condition of this name is a baseline for; None where it loops."""
    return _ROLES.get(
        name.partition(" (")[0].partition(":")[0]
    )  # `unlooped (runs/mine)`: of one of several studies


def counterparts(
    conditions: Sequence[Condition],
) -> tuple[list[tuple[Condition, list[Condition]]], list[str]]:
    """Return looped conditions with the baselines beside each, and a note for every baseline that does not match."""
    looped = [condition for condition in conditions if baseline_role(condition.name) is None]
    baselines = [condition for condition in conditions if baseline_role(condition.name)]
    names = {condition.name for condition in looped}
    pairs, notes = [], []
    for condition in looped:
        beside = []
        for baseline in baselines:
            under = baseline.name.partition(":")[2]
            if under in names and under != condition.name:
                continue
            if difference := _mismatch(condition, baseline):
                notes.append(f"{baseline.name} is no match for {condition.name}: {difference}.")
            else:
                beside.append(baseline)
        if beside:
            pairs.append((condition, beside))
    return pairs, notes


def inference_flops(condition: Condition) -> float | None:
    """Return a condition's counted FLOPs per token at its trained depth; None where they were not counted."""
    counted = condition.evaluations[0].flops_per_token
    return counted[condition.trained_loops - 1] if condition.trained_loops <= len(counted) else None


def run_flops(condition: Condition) -> float | None:
    """Return the FLOPs of the whole training run of a condition's first seed; None where they are not known."""
    evaluation = condition.evaluations[0]
    if evaluation.training_flops_per_token is None or evaluation.tokens_trained is None:
        return None
    return evaluation.training_flops_per_token * evaluation.tokens_trained


def _mismatch(looped: Condition, baseline: Condition) -> str | None:
    if baseline_role(baseline.name) == "same parameters":
        what, figures = "parameters", [float(c.evaluations[0].parameters) for c in (looped, baseline)]
    else:
        what = "FLOPs per token"
        counted = [inference_flops(c) for c in (looped, baseline)]
        figures = [value for value in counted if value is not None]
    if len(figures) < 2:
        return f"{what} were not counted"
    if abs(figures[1] / figures[0] - 1) > MATCH_TOLERANCE:
        return f"{figures[0]:.4g} against {figures[1]:.4g} {what}"
    return None
