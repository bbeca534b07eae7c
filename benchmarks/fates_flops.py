"""Supervision, drawn depths and the parts of a family that rests, at equal training FLOPs: the `flops` study.

Every condition takes as many steps as cost what the blind one costs in the study's, by the mean over seeds where depths
are drawn. Batches come in the same order, so that a seed's runs compare. A name of Huginn's says what it is without.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from benchmarks.fates_entries import EVENLY, RECIPE, SHAPES, Entry, growing, settings
from loopscope.config.run_config import RunConfig
from loopscope.jobs.study_cells import plan
from loopscope.objectives.depth_config import DepthConfig
from loopscope.plan.training_flops import training_cost

SEEDS = 3
BLIND = "blind"
_CONCAT = {"injection": {"kind": "concat"}}
_ADD = {"injection": {"kind": "add"}}
_GAIN = {**_CONCAT, "embedding_gain": "sqrt-dim"}
_FIXED = {"depth": {"distribution": "fixed", "backprop": None}}


@cache
def equal_flops(steps: int | None = None) -> dict[str, Entry]:
    """Return every condition by name, with the steps that make its FLOPs those of the blind one's `steps`."""
    steps = steps or SHAPES["flops"].steps
    entries = _entries(steps)
    changes = {name: dict(entry.change) for name, entry in entries.items() if entry.change is not None}
    configs = plan(RECIPE, list(entries), range(SEEDS), settings("flops", steps), changes, False)
    costs = {name: mean_cost([each for each in configs if each.condition == name]) for name in entries}
    changes = {
        name: _with_steps(change, steps * costs[BLIND] / costs[name]) for name, change in changes.items()
    }
    return {name: replace(entry, change=changes[name]) for name, entry in entries.items()}


def mean_cost(configs: Sequence[RunConfig]) -> float:
    """Over seeds, which draw other depths: FLOPs of a training step, per token."""
    return statistics.mean(map(flops_per_token, configs))


def flops_per_token(config: RunConfig) -> float:
    """Of a training step, per token. A curriculum runs the trained depth on average, and is counted as that."""
    if config.training.depth.curriculum:
        training = config.training.model_copy(update={"depth": DepthConfig()})
        config = config.model_copy(update={"training": training})
    return float(training_cost(config))


def _with_steps(change: Mapping[str, Any], steps: float) -> dict[str, Any]:
    return {**change, "training": {**change.get("training", {}), "steps": round(steps)}}


def _entries(steps: int) -> dict[str, Entry]:
    """Conditions before their steps are known; `steps` are the blind one's."""

    def supervised(condition: str, **change: Any) -> Entry:
        return Entry("supervision", SEEDS, {"condition": condition, **change})

    def part(condition: str, seeds: int = 2, **change: Any) -> Entry:
        return Entry("parts", seeds, {"condition": condition, **change})

    schedule = [{"until": 0.7, "placement": "dense"}, {"placement": "terminal"}]
    return {
        BLIND: supervised("dense/rmsnorm"),
        "penalty": supervised("dense/rmsnorm+penalty"),
        "terminal": supervised("terminal/rmsnorm"),
        "then-terminal": supervised("dense/rmsnorm", objective={"schedule": schedule}),
        "shortcut": supervised("terminal/rmsnorm", objective={"shortcut": {"weight": 0.1}}),
        "jacobian": supervised("dense/rmsnorm", objective={"jacobian": {"weight": 0.1}}),
        "drawn": supervised("dense/rmsnorm", training=EVENLY),
        "drawn-terminal": supervised("terminal/rmsnorm", training=EVENLY),
        "growing": supervised("dense/rmsnorm", training=growing(steps)),
        "concat": part("terminal/rmsnorm", model=_CONCAT),
        "concat-drawn": part("terminal/rmsnorm", model=_CONCAT, training=EVENLY),
        "concat-prelude": part("terminal/rmsnorm", model={**_CONCAT, "prelude": 1}),
        "concat-gain": part("terminal/rmsnorm", model=_GAIN),
        "concat-gain-drawn": part("terminal/rmsnorm", model=_GAIN, training=EVENLY),
        "concat-gain-start-random": part("terminal/rmsnorm", model={**_GAIN, "start": "random"}),
        "add-gain-drawn": part("terminal/rmsnorm", model={**_GAIN, **_ADD}, training=EVENLY),
        "gain-drawn": part("terminal/rmsnorm", model={"embedding_gain": "sqrt-dim"}, training=EVENLY),
        "huginn-whole": part("huginn", SEEDS),
        "huginn-fixed-depth": part("huginn", SEEDS, training=_FIXED),
        "huginn-fixed-depth-start-input": part("huginn", model={"start": "embedding"}, training=_FIXED),
        "huginn-no-prelude": part("huginn", model={"prelude": 0, "coda": 0, "coda_norm": False}),
        "huginn-start-input": part("huginn", model={"start": "embedding"}),
        "huginn-no-injection": part("huginn", model={"start": "embedding", "injection": {"kind": "none"}}),
        "huginn-pre-norm": part("huginn", model={"block": {"placement": "pre"}}),
        "parcae-whole": part("parcae"),
    }
