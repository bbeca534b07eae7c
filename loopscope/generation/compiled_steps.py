"""Steps over a cache whose every step is one compiled graph. At small sizes calls are most of a step, and this has few.

The prompt is read as ever. From then on the cache grows by `MORE_COLUMNS` at a time, so that attention over all columns
there are, masked, looks at few empty ones. Memory: the cache, and one slot's copy while it grows.
"""

import warnings

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from loopscope.generation.cached_steps import CachedSteps
from loopscope.generation.exits import ExitRule
from loopscope.generation.step_program import (
    LISTENED_TO,
    StepProgram,
    cannot_compile,
    program_of,
)
from loopscope.generation.steps import AbstractSteps, StepOutput
from loopscope.hooks import any_has_hooks
from loopscope.recurrence import AbstractLoopedLM

MORE_COLUMNS = 128
"""Columns that the cache grows by."""


def compiled_where_possible(
    steps: AbstractSteps, model: AbstractLoopedLM, loops: int, rule: ExitRule | None
) -> AbstractSteps:
    """Return the same steps, compiled; the steps given, and a warning that says why, where that cannot be."""
    if not isinstance(steps, CachedSteps):
        why: str | None = "it compiles steps over Loopscope's own cache, and this text is made without it"
    elif rule is not None:
        why = "with an exit rule, what a step runs is only known as it runs"
    else:
        why = cannot_compile(model)
    if why is None:
        assert isinstance(steps, CachedSteps)
        return CompiledSteps(model, loops, steps)
    _warn(why)
    return steps


class CompiledSteps(AbstractSteps):
    """Steps through a model's compiled graph; where it cannot be made after all, those that it was given.

    Args:
        plain: reads the prompt, makes the first step of a text of one token, and has what is kept.
    """

    def __init__(self, model: AbstractLoopedLM, loops: int, plain: CachedSteps) -> None:
        self._model, self._loops, self._plain = model, loops, plain
        self._program: StepProgram | None = None
        self._kept: _KeptTensors | None = None
        self._modules, self._stopped = list(model.modules()), False

    def prefill(self, input_ids: Int[Tensor, "rows seq"]) -> None:
        self._plain.prefill(input_ids)

    def step(self, tokens: Int[Tensor, " rows"]) -> StepOutput:
        if self._program is None:
            slots = tuple(self._plain.store.slots())
            if not slots:  # nothing is known of the cache yet
                return self._plain.step(tokens)
            self._program = program_of(self._model, self._loops, slots)
            if self._program.failure is not None:
                self._stopped = True
                _warn(self._program.failure)
        logits = None if self._stopped else self._compiled(self._program, tokens)
        if logits is None:
            return self._plain.step(tokens)
        return StepOutput(logits, torch.full((len(tokens),), self._loops))

    def _compiled(self, program: StepProgram, tokens: Int[Tensor, " rows"]) -> Tensor | None:
        kept = self._kept = self._kept or _KeptTensors(self._plain)
        kept.make_room()
        # Not the tokens themselves: how another call strides its result would count as another kind of input.
        kept.tokens.copy_(tokens if len(tokens) == len(kept.tokens) else tokens.expand(len(kept.tokens)))
        listened = any_has_hooks(self._modules)
        logits = None
        if not listened:
            logits = program(self._model, kept.tokens, kept.column, kept.pads, kept.keys, kept.values)
        if logits is None:
            _warn(LISTENED_TO if listened else program.failure or program.refused)
            self._stopped = True  # for this text
            kept.give_back(len(tokens))
            self._kept = None
            return None
        kept.column += 1
        self._plain.column += 1
        return logits[: len(tokens)]

    def select(self, rows: Int[Tensor, " rows"]) -> None:
        if self._kept is None:
            self._plain.select(rows)
        else:
            self._kept.select(rows)


class _KeptTensors:
    """What the graph takes: keys and values of every slot, and where the next token goes."""

    def __init__(self, plain: CachedSteps) -> None:
        self._plain, self._store = plain, plain.store
        self._layers = [self._store.layer(slot) for slot in self._store.slots()]
        self._resize(plain.column)
        self._gather()
        self.column = torch.tensor([plain.column], device=self.pads.device)

    def make_room(self) -> None:
        """Have a column for the next token."""
        place = self._plain.column
        if place >= self._layers[0].keys.shape[2]:
            self._resize(MORE_COLUMNS * (place // MORE_COLUMNS + 1))
            self._gather()

    def select(self, rows: Int[Tensor, " rows"]) -> None:
        """Keep only these rows. A last one that had neighbours stays two: one alone would take a graph of its own."""
        self._plain.select(rows.repeat(2) if len(rows) == 1 and len(self.tokens) > 1 else rows)
        self._gather()

    def give_back(self, rows: int) -> None:
        """Leave a cache as `CachedSteps` has it, of the first so many rows."""
        self._resize(self._store.capacity)
        if rows < len(self.tokens):
            self._plain.select(torch.arange(rows, device=self.pads.device))

    def _resize(self, columns: int) -> None:
        for layer in self._layers:
            more = (0, 0, 0, columns - layer.keys.shape[2])
            layer.keys, layer.values = F.pad(layer.keys, more), F.pad(layer.values, more)

    def _gather(self) -> None:
        """Take what the store has now, and say which of its axes differ from text to text."""
        self.keys = [layer.keys for layer in self._layers]
        self.values = [layer.values for layer in self._layers]
        self.pads = self._store.pads.clone()
        self.tokens = torch.zeros_like(self.pads)
        several = len(self.pads) > 1
        for each in (*self.keys, *self.values):
            torch._dynamo.maybe_mark_dynamic(each, [0, 2] if several else [2])
        if several:
            for each in (self.pads, self.tokens):
                torch._dynamo.maybe_mark_dynamic(each, 0)


def _warn(why: str | None) -> None:
    warnings.warn(f"compile has no effect: {why}. The text is the same without", stacklevel=3)
