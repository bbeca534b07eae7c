"""One step over the cache: the newest token of every row, through as many loops as its rule lets it run.

A row that leaves takes no part in the deeper loops: the batch is narrowed, also in the cache. What later tokens find
there of the one that left is the missing strategy's business.
"""

from collections import deque
from collections.abc import Mapping

import torch
from jaxtyping import Int
from torch import Tensor

from loopscope.generation.exits import ExitRule, RowRules
from loopscope.generation.missing import AbstractMissing
from loopscope.generation.steps import AbstractSteps, StepOutput
from loopscope.generation.store import Store
from loopscope.generation.view import View
from loopscope.recurrence import AbstractLoopedLM, narrow, unroll, unroll_from


class CachedSteps(AbstractSteps):
    """Steps over a cache: keys and values of every (loop, layer) are kept, so a step costs one token.

    Memory: see `store` and, with an exit rule, `missing`.

    Attributes:
        store: keys and values.
        column: of the next token.
    """

    def __init__(
        self,
        model: AbstractLoopedLM,
        loops: int,
        rule: ExitRule | None,
        missing: type[AbstractMissing],
        pads: Int[Tensor, " rows"],
        capacity: int,
    ) -> None:
        self._model, self._loops, self._rule = model, loops, rule
        self.store = Store(pads, capacity)
        self._missing = missing(model, self.store, loops)
        self.column = 0

    def prefill(self, input_ids: Int[Tensor, "rows seq"]) -> None:
        """Run the prompts to full depth, so that nothing of them is missing; with a rule, through every exit too."""
        seq = input_ids.shape[1]
        if seq == 0:
            return
        kv_cache = View(self.store, slice(self.column, self.column + seq))
        has_exits = "readout" in self._model.remembers
        for state in unroll(self._model, input_ids, self._loops, kv_cache=kv_cache):
            if has_exits and (state.is_last or self._rule is not None):
                state.features()
        self.column += seq

    def step(self, tokens: Int[Tensor, " rows"]) -> StepOutput:
        columns = slice(self.column, self.column + 1)
        self.column += 1
        if self._rule is not None:
            return self._until_the_rule(self._rule, tokens, columns)
        kv_cache = View(self.store, columns)
        (last,) = deque(unroll(self._model, tokens[:, None], self._loops, kv_cache=kv_cache), maxlen=1)
        return StepOutput(last.logits()[:, -1], torch.full((len(tokens),), self._loops))

    def _until_the_rule(self, rule: ExitRule, tokens: Tensor, columns: slice) -> StepOutput:
        kv_cache = View(self.store, columns, complete=self._missing.complete)
        states = unroll(self._model, tokens[:, None], self._loops, kv_cache=kv_cache)
        going = torch.arange(len(tokens), device=tokens.device)
        loops = torch.full((len(tokens),), self._loops)
        logits: Tensor | None = None
        before: Mapping[str, Tensor] = {}
        state = next(states)
        while True:
            self._missing.on_loop(state)
            leave, known_logits = None, None
            if not state.is_last:
                decision = rule.decide(state, before)
                leave, known_logits, before = decision.leave, decision.logits, decision.kept
                if not bool(leave.any()):
                    state = next(states)
                    continue
            leaving_state, stay = state, None
            if leave is not None and not bool(leave.all()):
                which, stay = leave.nonzero().squeeze(1), (~leave).nonzero().squeeze(1)
                leaving_state, known_logits = (
                    narrow(state, which),
                    None if known_logits is None else known_logits[which],
                )
            logits_here = leaving_state.logits()[:, -1] if known_logits is None else known_logits
            self._missing.on_exit(leaving_state)
            if stay is None and logits is None:  # all rows at once
                return StepOutput(logits_here, loops.fill_(state.loop))
            logits = logits_here.new_empty(len(tokens), logits_here.shape[1]) if logits is None else logits
            left = going if stay is None else going[which]
            logits[left], loops[left.cpu()] = logits_here, state.loop
            if stay is None:
                return StepOutput(logits, loops)
            state, going = narrow(state, stay), going[stay]
            before = {name: kept[stay] for name, kept in before.items()}
            states = unroll_from(state, state.hidden)
            state = next(states)

    def select(self, rows: Int[Tensor, " rows"]) -> None:
        self.store.select(rows)
        self._missing.select(rows)
        if isinstance(self._rule, RowRules):
            self._rule.select(rows)
