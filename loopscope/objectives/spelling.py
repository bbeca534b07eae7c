"""An objective spelled as one word, as the command line takes it: `dense`, `terminal+norm_penalty=0.01`,
`dense+scale_anchor=0.1@2.0`."""

from typing import Any

from pydantic import ValidationError

from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import Objective, build_objective


def spelled_section(text: str) -> dict[str, Any]:
    """Return the settings of an objective from its word: a placement, and penalties with their weights.

    Raises:
        ValueError: says which part is no penalty, and shows the form.
    """
    placement, *penalties = text.split("+")
    section: dict[str, Any] = {"placement": placement}
    for penalty in penalties:
        name, _, value = penalty.partition("=")
        weight, _, target = value.partition("@")
        try:
            numbers = {"weight": float(weight), **({"target": float(target)} if target else {})}
        except ValueError:
            numbers = {}
        if name not in ("norm_penalty", "scale_anchor") or not numbers or (target and name == "norm_penalty"):
            raise ValueError(
                f"objective {text!r}: {penalty!r} is not a penalty; write norm_penalty=WEIGHT or "
                "scale_anchor=WEIGHT@TARGET, as in dense+norm_penalty=0.01"
            )
        section[name] = numbers
    return section


def as_objective(value: Any) -> Any:
    """Return the `Objective` that a word or an `ObjectiveConfig` stands for; anything else as it is.

    Raises:
        ValueError: a word that stands for none.
    """
    if isinstance(value, str):
        try:
            value = ObjectiveConfig.model_validate(spelled_section(value))
        except ValidationError as error:
            texts = "; ".join(entry["msg"].removeprefix("Value error, ") for entry in error.errors())
            raise ValueError(f"objective {value!r} (dense, terminal+norm_penalty=0.01, …): {texts}") from None
    built: Objective = build_objective(value) if isinstance(value, ObjectiveConfig) else value
    return built
