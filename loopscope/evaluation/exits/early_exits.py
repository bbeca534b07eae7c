"""Early exit that saves time: sequences that are done leave the batch, the others go on.

Every sequence gets the logits of the exit it took, as the trained reading has it. What a rule computed there is used:
logits that it read are the exit's output. A rule that reads none leaves its exits' features behind, and one call of
the head reads them all. Rows are gathered only when somebody leaves; that copies one state (batch × seq × dim), far
less than a loop costs, so there is no threshold for it.

A model whose `narrows` is False (a foreign one: what its parts are called with was recorded for the whole batch)
keeps its batch until the last sequence has left. Outputs are the same; only leaving early together saves time.

Sequences only. A token cannot leave alone here: later tokens need its keys and values at deeper loops, and a mask of
tokens saves no time in a batch of whole sequences. Tokens leave in generation, one at a time. What `evaluate exits`
says of tokens is what they get where the others go on to full depth.

Memory: the output, and one loop's logits of the sequences still there where the rule reads logits (two loops' where
it compares).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.evaluation.exits.rules.base import AbstractExitRule
from loopscope.evaluation.exits.watch import Watch
from loopscope.recurrence import (
    AbstractLoopedLM,
    LoopState,
    check_attention_mask,
    narrow,
    texts_by_length,
    unroll,
    unroll_from,
)


@dataclass(frozen=True)
class EarlyExit:
    """What every sequence of a batch left with, in the batch's order."""

    logits: Float[Tensor, "batch seq vocab"]
    loops: Int[Tensor, " batch"]  # where each sequence left, 1-based

    @property
    def mean_loops(self) -> float:
        """Mean loops over sequences."""
        return float(self.loops.double().mean())


@torch.no_grad()
def early_exit(
    model: AbstractLoopedLM,
    input_ids: Int[Tensor, "batch seq"],
    rule: Any,
    threshold: Any,
    loops: int | None = None,
    attention_mask: Any = None,
) -> EarlyExit:
    """Run until every sequence has left by a rule, in the model's own mode (`model.eval()` for one with dropout).

    Args:
        rule: an exit rule (`loopscope.evaluation.exit_rules.build_rule`).
        threshold: in the rule's range; `rule.never` runs to full depth, bit for bit.
        loops: depth; None: the trained one.
        attention_mask: [batch, seq], 1 at tokens, 0 at padding (left, right or both): each sequence then leaves as its
            text does alone, texts of one length together, and has logits of 0 at padding. None: no padding.

    Raises:
        ValueError: a bound in place of a rule, a threshold out of range, a rule that this model cannot run (at its
            first loop), a score that is not a number, a mask that does not fit.
    """
    if not isinstance(rule, AbstractExitRule):
        name = getattr(rule, "name", rule)
        raise ValueError(
            f"rule is {name!r}, which cannot be run; give an exit rule, such as build_rule('direction-step')"
            + (
                " (a bound knows the labels: see `loopscope evaluate exits`)"
                if hasattr(rule, "scores")
                else ""
            )
        )
    tokens = check_attention_mask(input_ids, attention_mask)
    if tokens is not None:
        return _without_padding(tokens, lambda ids: early_exit(model, ids, rule, threshold, loops), input_ids)
    watch = Watch(rule, threshold)
    states = unroll(model, input_ids, loops)
    batch = len(input_ids)
    here = torch.arange(batch, device=input_ids.device)  # the sequence in every row of the batch at hand
    waiting = torch.ones(
        batch, dtype=torch.bool, device=input_ids.device
    )  # rows not gone: all, once narrowed
    taken = torch.zeros(batch, dtype=torch.long, device=input_ids.device)
    output = _Output(batch)
    while True:
        state = next(states)
        leaving = waiting if state.is_last else watch(state) & waiting
        if not bool(leaving.any()):
            watch.forget()
            continue
        rows = leaving.nonzero().squeeze(1)
        taken[here[rows]] = state.loop
        waiting = waiting & ~leaving
        output.add(here[rows], state, rows, watch.logits)
        if not bool(waiting.any()):
            return EarlyExit(output.logits(model), taken)
        if model.narrows:
            stay = waiting.nonzero().squeeze(1)
            state = narrow(state, stay)
            watch.narrow(stay)
            here, waiting = here[stay], waiting[stay]
            states = unroll_from(state, state.hidden)
        watch.forget()


def _without_padding(tokens: Tensor, leave: Callable[[Tensor], EarlyExit], input_ids: Tensor) -> EarlyExit:
    """What every text of a padded batch left with, texts of one length together."""
    logits, taken = None, torch.zeros(len(tokens), dtype=torch.long, device=input_ids.device)
    for rows, (ids,) in texts_by_length(tokens, input_ids):
        left = leave(ids)
        logits = left.logits.new_zeros(*tokens.shape, left.logits.shape[-1]) if logits is None else logits
        places = torch.zeros_like(tokens)
        places[rows] = tokens[rows]
        logits[places], taken[rows] = left.logits.flatten(0, 1), left.loops
    assert logits is not None
    return EarlyExit(logits, taken)


class _Output:
    """Exits as they are taken: logits where a rule read them, else features that the head reads at the end."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.read: Tensor | None = None
        self.waiting: list[tuple[Tensor, Tensor]] = []

    def add(self, rows_out: Tensor, state: LoopState, rows: Tensor, logits: Tensor | None) -> None:
        """Take these rows of this loop's batch."""
        if logits is None:
            if len(rows) == len(state.hidden):
                features = state.features()
            elif state.model.narrows:
                features = narrow(state, rows).features()
            else:
                features = state.features()[rows]
            self.waiting.append((rows_out, features))
        elif len(rows) == self.batch == len(logits):
            self.read = logits  # everybody leaves here: nothing to put together
        else:
            if self.read is None:
                self.read = logits.new_empty(self.batch, *logits.shape[1:])
            for row_out, row in zip(rows_out.tolist(), rows.tolist(), strict=True):
                self.read[row_out] = logits[row]  # one copy, where an index would make two

    def logits(self, model: AbstractLoopedLM) -> Float[Tensor, "batch seq vocab"]:
        """All exits' logits, in the batch's order."""
        if not self.waiting:
            assert self.read is not None
            return self.read
        rows_out = torch.cat([rows_of_exit for rows_of_exit, _ in self.waiting])
        features = torch.cat([feature for _, feature in self.waiting])
        if self.read is None:
            return model.head(features[rows_out.argsort()])
        self.read[rows_out] = model.head(features)
        return self.read
