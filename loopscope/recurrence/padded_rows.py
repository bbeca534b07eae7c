"""A looped model over texts of different lengths: every text gets what it gets alone.

Texts of one length run together, without their padding; those of another length by themselves. So no model needs to
know of padding: positions count from a text's own first token, whatever they are made of, and nothing can be seen that
is not there. It costs a call of the model for each length that occurs, and no arithmetic for padding.

Memory: what the model keeps, and each state twice where no gradient is recorded.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from loopscope.recurrence.looped_model import AbstractLoopedLM, CarryStep, LoopContext, LoopState

Parts = tuple[Tensor, ...]
"""What belongs to the texts of one length, [texts length …], for every length."""


class PaddedRows(AbstractLoopedLM):
    """A looped model over one padded batch. Holds the model itself, not a copy.

    Attributes:
        inner: the model.
        tokens: where the batch has tokens, [batch seq].
        packed: whether what goes in and out is [1 tokens …], the texts' tokens one after the other: what is a mean over
            tokens is then one over those of texts. Otherwise [batch seq …], with zeros at padding.
    """

    narrows = False

    def __init__(
        self, inner: AbstractLoopedLM, tokens: Bool[Tensor, "batch seq"], packed: bool = False
    ) -> None:
        super().__init__()
        self.inner, self.tokens, self.packed = inner, tokens, packed
        self.training = inner.training
        self.loops, self.depth_conditioned = inner.loops, inner.depth_conditioned
        self.readout_name, self.positions_limit = inner.readout_name, inner.positions_limit
        self._places, self._where = _layout(tokens, packed)
        self._contexts: WeakKeyDictionary[LoopContext, tuple[LoopContext, ...]] = WeakKeyDictionary()
        self._joined = WeakIdKeyDictionary()  # tensor joined without a gradient -> its parts
        self._started: tuple[Tensor, Parts] | None = None

    def embed(self, input_ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq dim"]:
        parts = tuple(self.inner.embed(ids) for ids in self._split(input_ids))
        embedded = self._join(parts)
        self._started = embedded, parts
        return embedded

    def core(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        return self._each(self.inner.core, hidden, loop, context)

    def carry(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        return self._each(self.inner.carry, hidden, loop, context)

    def readout(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq features"]:
        return self._each(self.inner.readout, hidden, loop, context)

    def head(self, features: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch vocab"]:
        return self.inner.head(features)

    def declared_exponent(self, loop: int, loops: int) -> float | str | None:
        return self.inner.declared_exponent(loop, loops)

    def declared_effect(self) -> str | None:
        return self.inner.declared_effect()

    def carry_steps(self) -> Sequence[CarryStep]:
        def apart(step: CarryStep) -> Callable[[Tensor, int], Tensor]:
            return lambda hidden, loop: self._join([step.apply(part, loop) for part in self._split(hidden)])

        return [replace(step, apply=apart(step)) for step in self.inner.carry_steps()]

    def head_matrix(self) -> Float[Tensor, "vocab dim"] | None:
        return self.inner.head_matrix()

    def exit_gate(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq"] | None:
        return self._gate(self.inner.exit_gate, hidden, loop, context)

    def gate_alone(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq"] | None:
        return self._gate(self.inner.gate_alone, hidden, loop, context)

    @property
    def stateless(self) -> bool:
        return self.inner.stateless

    def rejoin(self, state: LoopState) -> None:
        parts = zip(self._split(state.hidden), self._contexts_of(state.context), strict=True)
        for hidden, context in parts:
            self.inner.rejoin(LoopState(state.loop, hidden, self.inner, context))

    def beside(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Mapping[str, Float[Tensor, "..."]]:
        sides = self._sides(
            hidden, loop, context
        )  # whose places need not be those of tokens: one row of vectors
        return {name: torch.cat([side[name].flatten(0, -2) for side in sides])[None] for name in sides[0]}

    def put_beside(self, state: LoopState, side: Mapping[str, Float[Tensor, "..."]]) -> None:
        own = self._sides(state.hidden, state.loop, state.context)
        parts = zip(self._split(state.hidden), self._contexts_of(state.context), own, strict=True)
        left = {name: whole.flatten(0, -2) for name, whole in side.items()}
        for hidden, context, like in parts:
            given = {}
            for name, vectors in left.items():
                count = like[name].flatten(0, -2).shape[0]
                given[name], left[name] = vectors[:count].view_as(like[name]), vectors[count:]
            self.inner.put_beside(LoopState(state.loop, hidden, self.inner, context), given)

    def _sides(self, hidden: Tensor, loop: int, context: LoopContext) -> list[Mapping[str, Tensor]]:
        pairs = zip(self._split(hidden), self._contexts_of(context), strict=True)
        return [self.inner.beside(part, loop, own) for part, own in pairs]

    def _each(
        self,
        part: Callable[[Tensor, int, LoopContext], Tensor],
        hidden: Tensor,
        loop: int,
        context: LoopContext,
    ) -> Tensor:
        contexts = self._contexts_of(context)
        return self._join([part(h, loop, own) for h, own in zip(self._split(hidden), contexts, strict=True)])

    def _gate(
        self,
        gate: Callable[[Tensor, int, LoopContext], Tensor | None],
        hidden: Tensor,
        loop: int,
        context: LoopContext,
    ) -> Tensor | None:
        pairs = zip(self._split(hidden), self._contexts_of(context), strict=True)
        logits = [gate(part, loop, own) for part, own in pairs]
        known = [logit for logit in logits if logit is not None]
        return self._join(known) if len(known) == len(logits) else None

    def _contexts_of(self, context: LoopContext) -> tuple[LoopContext, ...]:
        """What the texts of each length have for their context in this unroll."""
        if context not in self._contexts:
            embedded = self._split(context.embedded)
            if self._started is not None and self._started[0] is context.embedded:
                embedded, self._started = self._started[1], None
            self._contexts[context] = tuple(
                LoopContext(ids, start, context.loops)
                for ids, start in zip(self._split(context.input_ids), embedded, strict=True)
            )
        return self._contexts[context]

    def _split(self, joined: Tensor) -> Parts:
        """What belongs to the texts of each length. What was joined is given back as it was, if no gradient is lost."""
        known: Parts | None = None if torch.is_grad_enabled() else self._joined.get(joined)
        flat = joined.flatten(0, 1)
        return known or tuple(flat[places.to(flat.device)] for places in self._places)

    def _join(self, parts: Sequence[Tensor]) -> Tensor:
        flat = [part.flatten(0, 1) for part in parts]
        rows = torch.cat([*flat, flat[0].new_zeros(1, *flat[0].shape[1:])])
        shape = (1, -1) if self.packed else self.tokens.shape
        joined: Tensor = rows[self._where.to(rows.device)].unflatten(0, shape)
        if not torch.is_grad_enabled():
            self._joined[joined] = tuple(parts)
        return joined


def texts_by_length(
    tokens: Bool[Tensor, "batch seq"], *batches: Tensor
) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
    """Yield the texts of each length without their padding: their rows, and what each of the batches has of them.

    Args:
        tokens: True at tokens, False at padding.
        batches: tensors [batch seq …].
    """
    lengths = tokens.sum(dim=1)
    for length in lengths.unique().tolist():
        rows = (lengths == length).nonzero().squeeze(1)
        texts = tokens[rows]
        yield rows, tuple(batch[rows][texts].unflatten(0, (len(rows), length)) for batch in batches)


def _layout(tokens: Bool[Tensor, "batch seq"], packed: bool) -> tuple[list[Tensor], Tensor]:
    """Return the places of the texts of each length in a flat batch, and where each place of it is in their joint rows.

    The joint rows have one more behind all texts: what padding is filled with.
    """
    count = int(tokens.sum())
    number = torch.full(tokens.shape, count, device=tokens.device)  # of each token, text after text
    number[tokens] = torch.arange(count, device=tokens.device)
    flat = torch.arange(tokens.numel(), device=tokens.device).view_as(tokens)
    texts = [found for _, found in texts_by_length(tokens, number, number if packed else flat)]
    places, order = [place for _, place in texts], [of_text.flatten() for of_text, _ in texts]
    in_joint = torch.cat([*order, number.new_tensor([count])]).argsort()  # by a token's number
    return places, in_joint[:-1] if packed else in_joint[number.flatten()]
