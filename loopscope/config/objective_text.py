"""An objective from plain values or from a word."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from loopscope.config.nested import problems
from loopscope.objectives.config import ObjectiveConfig


def read_objective(values: Any, source: Path | str) -> ObjectiveConfig:
    """Return an objective's config from plain values.

    Raises:
        ValueError: names the source, and each key that does not fit.
    """
    try:
        return ObjectiveConfig.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{source}: {'; '.join(problems(error, ObjectiveConfig))}") from None
