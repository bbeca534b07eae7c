"""Steps over the cache in two parts: the first loops for one guessed token at a time, the others for all of them.

Reading the weights is most of what a token costs, and reading them for five tokens costs little more than for one.
So a round of n guesses reads the shared stack (n + 1) · d + K - d times where n + 1 tokens alone read it (n + 1) · K
times, d being the loop that guesses.

Rows that take different numbers of guesses drift apart: each has its own columns then. One that is near its end and
wants fewer guesses than others repeats its last token in its place. What was kept of dropped guesses stays in the
cache, behind what anybody may see, until it is written over.
"""

from collections import deque

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.generation.draft import Draft
from loopscope.generation.store import Columns, Store
from loopscope.generation.view import View
from loopscope.recurrence import AbstractLoopedLM, LoopContext, LoopState, unroll, unroll_from


class DraftedSteps:
    """One batch of texts, which grows by some tokens of every row at each round.

    Attributes:
        loops: depth that decides.
    """

    def __init__(
        self, model: AbstractLoopedLM, loops: int, draft: Draft, pads: Int[Tensor, " rows"], capacity: int
    ) -> None:
        self.loops, self._model, self._exit = loops, model, draft.loops
        self.store = Store(pads, capacity)
        self._free = torch.zeros_like(pads)  # of every row, the first column that no token has
        self._last = torch.zeros_like(pads)  # of every row, the last place that it wants in this round
        self._states: list[LoopState] = []  # of the tokens of this round, at the draft's exit
        self._reads = "readout" in model.remembers

    def prefill(self, input_ids: Int[Tensor, "rows seq"]) -> None:
        """Run the prompts to full depth, and what has attention behind the loops at the two exits that are read."""
        seq = input_ids.shape[1]
        if seq == 0:
            return
        start = int(self._free[0])
        kv_cache = View(self.store, slice(start, start + seq))
        for state in unroll(self._model, input_ids, self.loops, kv_cache=kv_cache):
            if self._reads and (state.is_last or state.loop == self._exit):
                state.features()
        self._free += seq

    def begin(self, guesses: Int[Tensor, " rows"]) -> None:
        """Begin a round, in which every row wants so many guesses after its newest token."""
        self._last, self._states = guesses.to(self._free), []

    def guess(self, tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows vocab"]:
        """Take a token of every row to the draft's exit; return what that exit says of the next one.

        Args:
            tokens: the newest ones, then guess after guess; of a row that wants no more, its last one again.
        """
        return self._model.head(self._at_exit(tokens).features()[:, -1])

    def take(self, tokens: Int[Tensor, " rows"]) -> None:
        """Take the round's last token of every row to the draft's exit, where nobody asks what it says."""
        state = self._at_exit(tokens)
        if self._reads:
            state.features()

    def _at_exit(self, tokens: Int[Tensor, " rows"]) -> LoopState:
        place = len(self._states)
        kv_cache = View(self.store, self._columns(place, place + 1))
        states = unroll(self._model, tokens[:, None], self.loops, kv_cache=kv_cache)
        state = next(state for state in states if state.loop == self._exit)
        self._states.append(state)
        return state

    def verify(self) -> Float[Tensor, "rows seq vocab"]:
        """Take all tokens of this round to full depth; return what it says of the token after each."""
        states = self._states
        kv_cache = View(self.store, self._columns(0, len(states)))
        ids = torch.cat([state.context.input_ids for state in states], dim=1)
        if self._model.stateless:
            hidden = torch.cat([state.hidden for state in states], dim=1)
            embedded = torch.cat([state.context.embedded for state in states], dim=1)
            context = LoopContext(ids, embedded, self.loops, kv_cache)
            later = unroll_from(LoopState(self._exit, hidden, self._model, context), hidden)
        else:  # what goes on beside the states cannot be put together: from the first loop
            later = unroll(self._model, ids, self.loops, kv_cache=kv_cache)
        (last,) = deque(later, maxlen=1)
        return last.logits()

    def accept(self, counts: Int[Tensor, " rows"]) -> None:
        """End the round: of its tokens, each row keeps so many."""
        self._free += counts.to(self._free)

    def select(self, rows: Int[Tensor, " rows"]) -> None:
        """Keep only these rows, and forget all others. Between rounds."""
        self.store.select(rows)
        self._free = self._free[rows]

    def _columns(self, first: int, end: int) -> Columns:
        """Columns of the round's places from one to another."""
        free, last = self._free, self._last
        start = int(free.min())
        if start == int(free.max()) and int(last.min()) >= end - 1:
            return slice(start + first, start + end)
        return free[:, None] + torch.arange(first, end, device=free.device).minimum(last[:, None])
