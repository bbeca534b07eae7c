"""Depths of training steps, drawn from (seed, step). Importable without torch."""

import numpy as np

from loopscope.objectives.depth_config import DepthConfig

_STREAM = 0xDE97  # keeps these draws apart from every other use of (seed, step)


def draw_depths(config: DepthConfig, loops: int, seed: int, step: int, count: int) -> tuple[int, ...]:
    """Depths of step `step` (0-based): one, or one per sequence of a batch of `count`.

    Args:
        loops: the model's trained depth.

    The log-normal Poisson is that of Geiping et al., "Scaling up Test-Time Compute with Latent Reasoning" (arXiv
    2502.05171): τ ~ N(log mean - spread²/2, spread), depth = 1 + Poisson(e^τ).
    """
    generator = np.random.default_rng([_STREAM, seed, step])
    draws = count if config.per_sequence else 1
    mean = float(loops if config.mean is None else config.mean)
    match config.distribution:
        case "fixed":
            depths = np.full(draws, round(_grown(config, mean, step)))
        case "uniform":
            high = round(_grown(config, float(config.high or loops), step))
            depths = generator.integers(config.low, max(high, config.low), size=draws, endpoint=True)
        case "lognormal-poisson":
            centre = np.log(_grown(config, mean, step)) - config.spread**2 / 2
            depths = 1 + generator.poisson(np.exp(generator.normal(centre, config.spread, size=draws)))
    limited = np.clip(depths, config.low, config.high)
    return tuple(int(depth) for depth in limited)


def _grown(config: DepthConfig, value: float, step: int) -> float:
    """The curriculum: linear from low to `value` over the first steps."""
    if step >= config.curriculum:
        return value
    return config.low + (value - config.low) * step / config.curriculum
