"""Holm's correction: the chance of any false finding in a family of tests stays below the level.

Holm, "A simple sequentially rejective multiple test procedure" (Scandinavian Journal of Statistics, 1979). It holds
whatever the dependence between the tests; loops of one model are far from independent, so it is on the safe side.
"""

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number, in the order given.

    The smallest times n, the next times n - 1, and so on; never falling, at most 1.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
