"""An objective from plain values or from a word."""

from pathlib import Path
from typing import Any

from loopscope.config.nested import validated
from loopscope.objectives.config import ObjectiveConfig


def read_objective(values: Any, source: Path | str) -> ObjectiveConfig:
    """Return an objective's config from plain values.

    Raises:
        ValueError: names the source, and each key that does not fit.
    """
    return validated(ObjectiveConfig, values, source)
