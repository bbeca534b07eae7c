"""What deeper loops see of tokens that left early: `lazy`, `fill` or `reuse`. A new strategy is a file and a line."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from loopscope.generation.missing.base import AbstractMissing
from loopscope.generation.missing.fill import Fill
from loopscope.generation.missing.lazy import Lazy
from loopscope.generation.missing.reuse import Reuse

__all__ = ["STRATEGIES", "AbstractMissing", "Fill", "Lazy", "Reuse", "check_missing"]

STRATEGIES: Mapping[str, type[AbstractMissing]] = {kind.name: kind for kind in (Lazy, Fill, Reuse)}
"""Ways to fill keys and values that an early exit left out, by name."""


def check_missing(name: Any) -> type[AbstractMissing]:
    """Return the strategy of this name.

    Raises:
        ValueError: no such strategy.
    """
    if not isinstance(name, str) or name not in STRATEGIES:
        near = get_close_matches(str(name), STRATEGIES, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise ValueError(
            f"missing is {name!r}{hint} It is one of lazy (exact, computed when needed), fill (the exited state's "
            "keys and values) and reuse (those of the deepest loop that ran)"
        )
    return STRATEGIES[name]
