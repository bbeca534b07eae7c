"""Where a config alone says that the scale comes to rest: mostly nowhere, or that it does not decide it."""

import math
from collections.abc import Sequence

from loopscope.model.config import ModelConfig
from loopscope.objectives.config import ObjectiveConfig
from loopscope.results import Verdict

OF_PENALTIES = ("the norm penalty", "the scale anchor")
"""Terms, as `static_audit` names them, that pull on the scale and do not read the exits."""


def resting_by_config(
    model: ModelConfig, objective: ObjectiveConfig, verdict: Verdict, seen_by: Sequence[str]
) -> str:
    """Return what a config says of the size at which the scale rests, in a sentence.

    Args:
        verdict: of the model under this objective, by its config.
        seen_by: terms that see the scale of some loop directly.
    """
    anchor = objective.scale_anchor
    match verdict:
        case "removed":
            return "removed between loops: there is nothing to hold"
        case "blind":
            return "held by nothing: there is no size that training would return it to"
        case "damped":
            return "held by the loops, which shrink a large state; at which size, a config does not decide"
    if any(term not in OF_PENALTIES for term in seen_by):
        return "held by cross-entropy, with the logits; at which size, a config does not decide"
    if objective.norm_penalty.weight == 0 and anchor.weight > 0:
        norm = anchor.target * math.sqrt(model.dim)
        return (
            f"held by the anchor: not pushed beyond its target, RMS {anchor.target:g} (an L2 norm of {norm:.3g}); how "
            "far from it cross-entropy keeps it, a config does not decide"
        )
    return (
        "held by the penalty; at which size, a config does not decide: between runs alike but for the weight, of 1e-4 "
        "or more, ten times the weight left it 1.4 to 2.6 times smaller at their ends"
    )
