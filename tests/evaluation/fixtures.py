"""Evaluation records made from given window losses: what tests of comparisons start from."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from loopscope.results import DepthCurve, LoopQuality, ModelEvaluation

BYTES = 3.5


def made_curve(losses: Any, labels: Sequence[int] = ()) -> DepthCurve:
    """A curve from losses [loops windows] in nats per token."""
    losses = np.asarray(losses, dtype=np.float64)
    weights = np.array(labels, dtype=float) if labels else np.ones(losses.shape[1])
    means = [float(np.average(row[weights > 0], weights=weights[weights > 0])) for row in losses]
    return DepthCurve(
        reading="at depth",
        per_loop=tuple(
            LoopQuality(loop, mean, math.exp(mean), mean / math.log(2) / BYTES, 1.0, 1.0, accuracy=0.5)
            for loop, mean in enumerate(means, start=1)
        ),
        window_loss=tuple(map(tuple, losses.tolist())),
        window_labels=tuple(labels),
    )


def made(condition: str, seed: int, losses: Any, labels: Sequence[int] = (), **over: Any) -> ModelEvaluation:
    """The evaluation of one seed of one condition; `over` replaces fields."""
    curve = made_curve(losses, labels)
    values: dict[str, Any] = {
        "name": f"{condition}, seed {seed}",
        "condition": condition,
        "size": "laptop",
        "seed": seed,
        "trained_loops": 2,
        "parameters": 1000,
        "data": "validation text of stdlib",
        "bytes_per_token": BYTES,
        "windows": len(curve.window_loss[0]),
        "sequence": 128,
        "flops_per_token": tuple(100.0 * loop for loop in range(1, len(curve.per_loop) + 1)),
        "training_flops_per_token": 600.0,
        "tokens_trained": 5000,
        "depth": (curve,),
    }
    return ModelEvaluation(**{**values, **over})


def drawn(
    generator: np.random.Generator,
    means: Sequence[float],
    seeds: int = 3,
    windows: int = 40,
    of_seed: float = 0.05,
    of_window: float = 0.3,
    noise: float = 0.05,
) -> list[np.ndarray]:
    """Losses [loops windows] per seed: a mean per loop, an effect of the seed, one of the window, and noise.

    Effects of seed and window are the condition's own; what conditions share cancels in pairs anyway.
    """
    text = of_window * generator.standard_normal(windows)
    return [
        np.array(means)[:, None]
        + of_seed * generator.standard_normal()
        + text
        + noise * generator.standard_normal((len(means), windows))
        for _ in range(seeds)
    ]
