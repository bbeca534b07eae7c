"""A step's time from parts that were timed on the device itself, on models of few layers and loops.

Of a part of a batch, with L layers and K loops, every cost is one of four: alone + L·layer + K·loop + K·L·use. Four
small models (few layers, few loops) tell them; nothing is fitted to whole runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CORNERS = ((1, 2), (3, 2), (1, 4), (3, 4))
"""Layers and loops of the models that are timed: two of each, and two loops at least, which some losses need."""
UNLOOPED_CORNERS = ((1, 1), (3, 1))
"""Of a model with a single loop."""


@dataclass(frozen=True)
class TimedStep:
    """Seconds of the forward and backward pass of one token, by what they hang on, and of the update.

    Attributes:
        alone: per token, whatever the layers and loops: embedding, prelude, coda, an exit that is read in any case.
        layer: per token and layer, however many loops: layers that run once.
        loop: per token and loop: an exit, and what is between loops.
        use: per token, layer and loop.
        update: per parameter: clipping and the optimizer.
    """

    alone: float
    layer: float
    loop: float
    use: float
    update: float

    def parts(self, tokens: float, layers: int, loops: float, parameters: int) -> tuple[float, float, float]:
        """Return seconds of a step: in layers, by loop beside them, and the rest with the update."""
        of_layers = layers * (self.layer + loops * self.use)
        return tokens * of_layers, tokens * loops * self.loop, tokens * self.alone + parameters * self.update


def solved(seconds: Mapping[tuple[int, int], float], tokens: int, update: float) -> TimedStep:
    """Return the four costs from what models with `CORNERS` (or `UNLOOPED_CORNERS`) took for so many tokens.

    Args:
        seconds: of a forward and backward pass, by layers and loops.
        update: seconds per parameter.

    Costs below 0 are noise, and count as 0.

    Example:
        >>> solved({(1, 1): 3.0, (3, 1): 5.0}, tokens=1, update=0.0)
        TimedStep(alone=2.0, layer=0.0, loop=0.0, use=1.0, update=0.0)
    """
    few, many = min(layers for layers, _ in seconds), max(layers for layers, _ in seconds)
    short, long = min(loops for _, loops in seconds), max(loops for _, loops in seconds)
    more = many - few
    if short == long:
        use = max(0.0, (seconds[many, short] - seconds[few, short]) / more)
        alone = max(0.0, seconds[few, short] - few * use)
        return TimedStep(alone / tokens, 0.0, 0.0, use / tokens, update)
    deeper = long - short
    use = max(
        0.0,
        (seconds[many, long] - seconds[few, long] - seconds[many, short] + seconds[few, short])
        / (more * deeper),
    )
    layer = max(0.0, (seconds[many, short] - seconds[few, short]) / more - short * use)
    loop = max(0.0, (seconds[few, long] - seconds[few, short]) / deeper - few * use)
    alone = max(0.0, seconds[few, short] - few * (layer + short * use) - short * loop)
    return TimedStep(alone / tokens, layer / tokens, loop / tokens, use / tokens, update)


def mean(steps: Sequence[TimedStep], shares: Sequence[float]) -> TimedStep:
    """Return the mean of a run's phases, by their shares of the steps."""
    names = ("alone", "layer", "loop", "use", "update")
    return TimedStep(
        **{
            name: sum(share * getattr(step, name) for step, share in zip(steps, shares, strict=True))
            for name in names
        }
    )
