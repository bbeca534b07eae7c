"""Exit rules: when a sequence or a token has looped enough.

A rule's class attributes declare what it is (`AbstractRule`). One of a user's own is named `package.module:ClassName`,
or registered as an entry point of group `loopscope.exit_rules`.
"""

import inspect
from collections.abc import Mapping

from loopscope.evaluation.exits.rules.base import AbstractBound, AbstractExitRule, AbstractRule, Kept, Sizes
from loopscope.evaluation.exits.rules.direction_step import DirectionStep
from loopscope.evaluation.exits.rules.entropy_confidence import EntropyConfidence
from loopscope.evaluation.exits.rules.fixed import Fixed
from loopscope.evaluation.exits.rules.hidden_step import HiddenStep
from loopscope.evaluation.exits.rules.kl import KLDivergence
from loopscope.evaluation.exits.rules.learned_gate import LearnedGate
from loopscope.evaluation.exits.rules.logit_margin import LogitMargin
from loopscope.evaluation.exits.rules.logit_rule import AbstractLogitRule
from loopscope.evaluation.exits.rules.look import Look
from loopscope.evaluation.exits.rules.max_probability import MaxProbability
from loopscope.evaluation.exits.rules.oracle import Oracle
from loopscope.evaluation.exits.rules.shortlist_margin import ShortlistMargin
from loopscope.results.class_names import ClassNames, Shipped, own_words
from loopscope.results.declaration import DOCS

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
    "rule_names",
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
"""Shipped exit rules by name."""


def _declared(rule: type) -> type[AbstractRule]:
    """Return a rule of others, if it declares what it needs, on which side it leaves, and what it costs."""
    assert issubclass(rule, AbstractRule)
    said: set[str] = set()
    for base in rule.__mro__:
        # Its own words, or those of an abstract rule that is made to be inherited from: not another rule's.
        if base is rule or (inspect.isabstract(base) and base not in (AbstractRule, AbstractExitRule)):
            said |= vars(base).keys()
    wanted = ["needs", "leaves"]
    if issubclass(rule, AbstractExitRule) and "look_flops" not in said:
        wanted.append("flops")
    _NAMES.refuse_undeclared(rule, [name for name in wanted if name not in said])
    if issubclass(rule, AbstractLogitRule) and "logits" not in rule.needs:
        raise ValueError(
            f"{_NAMES.owner(rule)} scores logits and declares needs={rule.needs!r}; allowed: ('logits',) ({DOCS})"
        )
    return rule


_NAMES: ClassNames[type[AbstractRule]] = ClassNames(
    noun="exit rule",
    setting="--rules",
    group="loopscope.exit_rules",
    base="loopscope.evaluation.exits.rules.base:AbstractRule",
    public="loopscope.evaluation.AbstractExitRule",
    shipped={name: Shipped(rule, f"{rule.__module__}:{rule.__name__}") for name, rule in RULES.items()},
    declared=_declared,
)


def rule_names() -> list[str]:
    """Return the names of the rules that are shipped and of those that installed packages register."""
    return [*RULES, *_NAMES.installed()]


def build_rule(name: str) -> AbstractRule:
    """Return the rule of this name: a shipped one, an installed package's, or `package.module:ClassName`.

    The name is the caller's own word: its module is imported.

    Raises:
        ValueError: no such rule, with the nearest; a class that is none, or does not declare what it is.
    """
    with own_words():
        found = _NAMES.declaration(name)
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise ValueError(
            f"exit rule {name} is made by its class without arguments, which its constructor does not allow: {error}; "
            f"give every argument a default ({DOCS})"
        ) from None
    rule = found()
    if name not in RULES:
        setattr(rule, "name", name)  # noqa: B010 (a class attribute of the shipped ones)
        rule.check_declared()
    return rule
