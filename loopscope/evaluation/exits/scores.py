"""An exit rule's scores of one loop, held to what every driver takes: one number per token, and what to keep.

Every driver asks a rule here, so that a rule of a user's own is told what is wrong with it by name.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.evaluation.exits.rules.base import AbstractExitRule, Kept
from loopscope.evaluation.exits.rules.look import Look


def score_tokens(rule: AbstractExitRule, look: Look, before: Kept) -> tuple[Float[Tensor, "batch seq"], Kept]:
    """Return a rule's score of every token, and what it keeps for the next loop. It is shown what it declares.

    Args:
        look: the whole look at the loop at hand.
        before: what the rule kept of the loop before; empty at loop 1.

    Raises:
        ValueError: the rule reads what it does not declare, or gives something else than scores [batch seq] that are
            numbers and tensors [batch …].
    """
    given: Any = rule.score(look.declared(rule.name, rule.needs), before)
    if not (isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], Mapping)):
        raise ValueError(
            f"exit rule {rule.name} gave {_shown(given)} at loop {look.loop}; expected two things: scores "
            "[batch seq], and what to keep for the next loop as a dict of tensors ({} for nothing)"
        )
    scores, kept = given
    if not isinstance(scores, Tensor) or scores.shape != look.shape:
        raise ValueError(
            f"exit rule {rule.name} gave {_shown(scores)} as its scores at loop {look.loop}; expected one number per "
            f"token, [batch seq], which is {list(look.shape)} here"
        )
    for name, value in kept.items():
        if not isinstance(value, Tensor) or value.shape[:1] != look.shape[:1]:
            raise ValueError(
                f"exit rule {rule.name} keeps {_shown(value)} as {name!r} at loop {look.loop}; expected a tensor with "
                f"the batch first, [{look.shape[0]} …], so that sequences can leave"
            )
    check_numbers(rule, look, scores)
    return scores, kept


def check_numbers(rule: AbstractExitRule, look: Look, scores: Float[Tensor, "batch seq"]) -> None:
    """Refuse scores that are not numbers, and say whose fault it is: the rule's own, or the model's.

    Raises:
        ValueError: a score is NaN.
    """
    wrong = scores.isnan().nonzero()
    if not len(wrong):
        return
    row, token = wrong[0].tolist()
    state = look.state
    features = look.features[row, token]
    with torch.no_grad():
        logits = state.model.head(features[None, None])
    gate = state.gate_logit()
    read = [state.hidden[row, token], features, *([] if gate is None else [gate[row, token]])]
    if all(bool(part.isfinite().all()) for part in read) and not bool(logits.isnan().any()):
        raise ValueError(
            f"exit rule {rule.name} gives scores that are not numbers at loop {look.loop}, where the model's states "
            f"and logits are: the rule's own computation makes them. Where it has nothing to say, give "
            f"{-rule.never:g}, at which nobody leaves"
        )
    raise ValueError(
        f"exit rule {rule.name!r} has scores that are not numbers at loop {look.loop}: the model's states or logits "
        "are not finite there. Evaluate an earlier checkpoint, or fewer loops"
    )


def sequence_means(
    rule: AbstractExitRule, look: Look, scores: Float[Tensor, "batch seq"]
) -> Float[Tensor, " batch"]:
    """Return what a sequence leaves by: the mean of its tokens' scores.

    Raises:
        ValueError: a sequence has both inf and -inf, which have no mean.
    """
    means = scores.double().mean(dim=1)
    if bool(means.isnan().any()):
        raise ValueError(
            f"exit rule {rule.name} gives inf and -inf to tokens of one sequence at loop {look.loop}, which have no "
            f"mean; give {-rule.never:g} alone where nobody is to leave"
        )
    return means


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return f"a {type(value).__name__}"
