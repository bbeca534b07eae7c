"""Studies of made records."""

from typing import Any

import numpy as np

from loopscope.evaluation.compare.comparison import compare
from loopscope.results import Comparison, ModelEvaluation
from tests.evaluation.fixtures import drawn, made


def study(
    means: dict[str, list[float]], seeds: int = 3, seed: int = 0, over: Any = None, **spread: float
) -> list[ModelEvaluation]:
    """Every condition at its mean losses, over seeds that share nothing but the text."""
    generator = np.random.default_rng(seed)
    return [
        made(name, number, losses, **((over or {}).get(name, {})))
        for name, values in means.items()
        for number, losses in enumerate(drawn(generator, values, seeds, **spread))
    ]


BASELINES = {
    "unlooped": {"trained_loops": 1, "training_flops_per_token": 300.0},
    "unlooped-deep": {
        "trained_loops": 1,
        "parameters": 1900,
        "flops_per_token": (200.0, 400.0),
        "training_flops_per_token": 600.0,
    },
}


def with_baselines(**means: list[float]) -> Comparison:
    losses = {"raw": [2.5, 2.2, 2.3, 2.4], "norm": [2.4, 2.3, 2.3, 2.4]}
    return compare(
        study({**losses, **{k.replace("_", "-"): v for k, v in means.items()}}, seeds=5, over=BASELINES)
    )
