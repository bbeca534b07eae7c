"""Sizes named by a number of parameters (`1.4b`, `350m`): the published architecture, scaled. Importable without torch.

The paper's two models have a head and a layer for every 64 channels: 8 at 512 channels (44M), 12 at 768 (129M).
A count takes the multiple of 64 channels whose own number of layers comes nearest to that rule, and then as many layers
as come nearest to the count. Vocabulary, window and optimizer are the published ones; a step takes 512 windows.
"""

import re

CHANNELS = 64
"""Channels of a head, and channels per layer."""
ENTRIES, POSITIONS = 20_000, 256
"""The published vocabulary and window."""
COUNT_BATCH = 512
"""Windows of a step."""
MOST_HEADS = 512
"""Far above the rule at the largest count."""
MISSED = 0.1
"""Share by which the model may miss the count."""
LEAST_COUNT, MOST_COUNT = 2_000_000, 1_000_000_000_000
_COUNT = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)([mb])", re.IGNORECASE | re.ASCII)


def parameters_named(name: str) -> int | None:
    """Return the parameters that a size's name says; None where it is no count.

    Example:
        >>> parameters_named("1.4b")
        1400000000
    """
    found = _COUNT.fullmatch(name)
    if found is None:
        return None
    return round(float(found[1]) * {"m": 1e6, "b": 1e9}[found[2].lower()])


def shape_of(count: int) -> tuple[int, int]:
    """Return (dim, layers) of the scaled model that comes nearest to `count` parameters.

    Raises:
        ValueError: a count that no such model comes near.
    """
    if not LEAST_COUNT <= count <= MOST_COUNT:
        raise ValueError(f"a size of {count:,} parameters is not planned; give one from 2m to 1000b")
    best: tuple[float, int, int] | None = None
    for heads in range(1, 1 + MOST_HEADS):
        dim = CHANNELS * heads
        layer, rest = 16 * dim * dim + 2 * dim, dim * (ENTRIES + POSITIONS + 1)
        layers = max(1, round((count - rest) / layer))
        if abs(rest + layers * layer - count) > MISSED * count:
            continue
        off = abs(layers / heads - 1) if layers >= heads else abs(heads / layers - 1)
        if best is None or off < best[0]:
            best = off, dim, layers
    if best is None:
        raise ValueError(
            f"no scaled model comes within {MISSED:.0%} of {count:,} parameters: {ENTRIES:,} entries of the vocabulary "
            "take too many of them; take a larger size, or one of the named ones"
        )
    return best[1], best[2]
