"""Synthetic results, clearly so: curves from formulas, for tests of drawing only."""

import math
from collections.abc import Callable
from typing import Any

from loopscope.results import EvalPoint, Failure, LoopMetrics, RunResult, StudyResults, TrainPoint, provenance

Maker = Callable[..., RunResult]


def make_run(
    condition: str = "made/up", seed: int = 0, loops: int = 4, scale: float = 10.0, **changes: Any
) -> RunResult:
    """A completed run whose L2 norm at loop k is scale·k and whose perplexity falls with k."""
    wobble = 1 + 0.05 * seed

    def entry(loop: int, share: float) -> LoopMetrics:
        loss = (5 - loop / loops - share) * wobble
        return LoopMetrics(loop, loss, math.exp(loss), loss / 3, scale * loop * wobble, scale * loop / 8)

    values: dict[str, Any] = {
        "condition": condition,
        "size": "laptop",
        "seed": seed,
        "status": "completed",
        "parameters": 1_000_000,
        "tokens_trained": 40_000,
        "steps": 20,
        "seconds": 12.5,
        "per_loop": tuple(entry(k, 1.0) for k in range(1, loops + 1)),
        "training": tuple(
            TrainPoint(step, 6.0, tuple(scale * k * step / 20 for k in range(1, loops + 1)))
            for step in range(1, 21)
        ),
        "evaluations": tuple(
            EvalPoint(step, tuple(entry(k, step / 20) for k in range(1, loops + 1))) for step in (10, 20)
        ),
        "config": {"model": {"dim": 64}},
        "provenance": provenance("cpu", 2),
    }
    return RunResult(**{**values, **changes})


def make_failed(condition: str = "made/broken", **changes: Any) -> RunResult:
    """A run that diverged."""
    failure = Failure(
        "the loss was not finite", step=7, loop=2, l2_norm=(1.0, math.inf), last_checkpoint="step-5"
    )
    return make_run(condition, status="diverged", per_loop=(), evaluations=(), failure=failure, **changes)


def make_study(*runs: RunResult) -> StudyResults:
    """Runs as a study."""
    return StudyResults(runs=runs, provenance=provenance())
