"""Exit rules: when a sequence or a token has looped enough. A new one is a file here and a line below."""

from collections.abc import Mapping
from difflib import get_close_matches

from loopscope.evaluation.exits.rules.base import AbstractBound, AbstractExitRule, AbstractRule, Kept, Sizes
from loopscope.evaluation.exits.rules.direction_step import DirectionStep
from loopscope.evaluation.exits.rules.entropy_confidence import EntropyConfidence
from loopscope.evaluation.exits.rules.fixed import Fixed
from loopscope.evaluation.exits.rules.hidden_step import HiddenStep
from loopscope.evaluation.exits.rules.kl import KLDivergence
from loopscope.evaluation.exits.rules.learned_gate import LearnedGate
from loopscope.evaluation.exits.rules.logit_margin import LogitMargin
from loopscope.evaluation.exits.rules.look import Look
from loopscope.evaluation.exits.rules.max_probability import MaxProbability
from loopscope.evaluation.exits.rules.oracle import Oracle
from loopscope.evaluation.exits.rules.shortlist_margin import ShortlistMargin

__all__ = [
    "RULES",
    "AbstractBound",
    "AbstractExitRule",
    "AbstractRule",
    "DirectionStep",
    "EntropyConfidence",
    "Fixed",
    "HiddenStep",
    "KLDivergence",
    "Kept",
    "LearnedGate",
    "LogitMargin",
    "Look",
    "MaxProbability",
    "Oracle",
    "ShortlistMargin",
    "Sizes",
    "build_rule",
]

RULES: Mapping[str, type[AbstractRule]] = {
    rule.name: rule
    for rule in (
        LogitMargin,
        MaxProbability,
        EntropyConfidence,
        KLDivergence,
        ShortlistMargin,
        HiddenStep,
        DirectionStep,
        LearnedGate,
        Fixed,
        Oracle,
    )
}


def build_rule(name: str) -> AbstractRule:
    """The rule of this name.

    Raises:
        ValueError: no such rule; names the nearest.
    """
    if name not in RULES:
        near = get_close_matches(name, RULES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"unknown exit rule {name!r}{hint} Known: {', '.join(RULES)}")
    return RULES[name]()
