"""A looped language model: its five parts, what they may read, and the loop that runs them.

`run_loops` is the ONE generator. It keeps one hidden state alive at a time: without gradients, memory does not grow
with the number of loops.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from loopscope.kv_cache import AbstractKVCache, Part


@dataclass(frozen=True)
class LoopContext:
    """What every loop of one unroll may read besides the hidden state."""

    input_ids: Int[Tensor, "batch seq"]
    embedded: Float[Tensor, "batch seq dim"]  # the state the first loop starts from
    loops: int  # how many loops this unroll runs; a final-only readout asks whether this is the last
    kv_cache: AbstractKVCache | None = None  # what tokens before `input_ids` left behind, in generation


@dataclass(frozen=True)
class CarryStep:
    """A step of a carry, by itself, and what it declares of scale: removes, damps or keeps."""

    name: str
    effect: str
    apply: Callable[[Tensor, int], Tensor]  # H [batch seq dim] of loop k, k: what the step makes of it


class AbstractLoopedLM(nn.Module, ABC):
    """A looped language model, in the order the data passes: embed, (core, carry) per loop, readout, head.

    Attributes:
        loops: the trained depth K. `unroll` runs to it by default; any depth from 1 up works.
        depth_conditioned: whether a state depends on how many loops its unroll runs. Where it does not, a
            shorter unroll is the start of a longer one.
        readout_name: what reports call its readout, or None.
        narrows: whether fewer rows of a batch go on at no extra cost. Where not (what a foreign module is called
            with is recorded per batch), rows that have left ride along.
        remembers: the parts that read and fill `LoopContext.kv_cache`. Empty: the model does not know it, and
            generation computes the whole text anew for every token.
        traceable: whether a compiler may trace those parts over a cache of tensors: what they do to numbers is all that
            they do. A trace that fails costs time and nothing else.
        positions_limit: tokens that a text may have; None: no limit that the model knows.
        remarks: what the reader of an audit should know of how the model is run, a sentence each.
    """

    loops: int
    depth_conditioned: bool = False
    narrows: bool = True
    readout_name: str | None = None
    remembers: tuple[Part, ...] = ()
    traceable: bool = False
    positions_limit: int | None = None
    remarks: tuple[str, ...] = ()

    @abstractmethod
    def embed(self, input_ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq dim"]:
        """Turn token ids into the state that the first loop starts from."""

    @abstractmethod
    def core(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        """Apply the shared stack once; returns H_k, before anything done between loops."""

    @abstractmethod
    def carry(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        """Turn H_k of loop k = `loop` into the input of loop k + 1. Not called after the last loop."""

    @abstractmethod
    def readout(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        """Turn H_k into what the head reads."""

    @abstractmethod
    def head(self, features: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocab"]:
        """Readout features to logits. Any leading shape: losses call it on chunks of tokens."""

    def declared_exponent(self, loop: int, loops: int) -> float | str | None:
        """Return p where scaling H_k by c scales the features by c^p, as the readout declares; None where nothing says.

        A measured audit compares it with what it measures. `fades` is no power.
        """
        return None

    def declared_effect(self) -> str | None:
        """Return what is declared of the carry's effect on scale: removes, damps or keeps; None where nothing says."""
        return None

    def carry_steps(self) -> Sequence[CarryStep]:
        """Return the steps that the carry is made of and that declare what they do, in order; none where it is one."""
        return ()

    def head_matrix(self) -> Float[Tensor, "vocab dim"] | None:
        """Return the head's matrix where `head(features)` is `features @ matrix.T` and nothing else; None otherwise.

        A loss that has it takes the gradient while the logits are there, and computes no product twice.
        """
        return None

    def exit_gate(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq"] | None:
        """Return the logit of stopping at this loop, or None for a model without a learned gate."""
        return None

    def gate_alone(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq"] | None:
        """Return the exit gate's logit where only the gate is trained: its gradient reaches the gate's own parameters.

        Override it in a model whose gate reads through parts that have parameters of their own.
        """
        return self.exit_gate(hidden.detach(), loop, context)

    def loop_layers(self) -> Sequence[nn.Module] | None:
        """Return the layers that `core` calls, for a lens; None: the outermost modules that a run shows it to call."""
        return None

    @property
    def stateless(self) -> bool:
        """Whether nothing but H_k goes from loop to loop, as for a model that needs no `rejoin` of its own."""
        return type(self).rejoin is AbstractLoopedLM.rejoin

    def rejoin(self, state: "LoopState") -> None:
        """Forget what ran since this state: a run goes on from it, with what its own unroll had there beside H_k.

        Only for a model that hands more than H_k from loop to loop (`side state`) and keeps it itself.
        """

    def beside(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Mapping[str, Float[Tensor, "..."]]:
        """Return what goes on from loop `loop` beside this H_k, by name, channels last; empty where nothing does."""
        return {}

    def put_beside(self, state: "LoopState", side: Mapping[str, Float[Tensor, "..."]]) -> None:
        """Let the next run that goes on from a changed H_k of this state have `side` beside it.

        Only for a model that says what goes `beside`.
        """
        raise NotImplementedError(f"{type(self).__name__} hands nothing from loop to loop beside H_k")

    def embed_after(
        self, input_ids: Int[Tensor, "batch seq"], kv_cache: AbstractKVCache
    ) -> Float[Tensor, "batch seq dim"]:
        """Do what `embed` does for tokens that come after others. Only for a model that `remembers`."""
        raise NotImplementedError(f"{type(self).__name__} remembers nothing of earlier tokens")

    def remember(self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext) -> None:
        """Fill the cache as `core` would in loop `loop`, were `hidden` the input of every layer: none is run."""
        raise NotImplementedError(f"{type(self).__name__} remembers nothing of earlier tokens")

    def forward(
        self, input_ids: Int[Tensor, "batch seq"], attention_mask: Any = None
    ) -> Float[Tensor, "batch seq vocab"]:
        """Return the logits of the last trained loop, [batch seq vocab]: what a plain language model returns.

        Args:
            attention_mask: as `unroll` takes it.
        """
        from loopscope.recurrence.driver import unroll  # which is written in terms of this class

        states = unroll(self, input_ids, attention_mask=attention_mask)
        return deque(states, maxlen=1)[0].logits()  # one state alive at a time


@dataclass(frozen=True)
class LoopState:
    """One loop of an unroll. Nothing beyond `hidden` is computed until asked for.

    Attributes:
        loop: 1-based index k.
        hidden: H_k, the stack's output before anything done between loops.
    """

    loop: int
    hidden: Float[Tensor, "batch seq dim"]
    model: AbstractLoopedLM
    context: LoopContext

    @property
    def is_last(self) -> bool:
        """Whether the unroll stops after this loop."""
        return self.loop == self.context.loops

    def features(self) -> Float[Tensor, "batch seq dim"]:
        """Return the readout of H_k: the head's input."""
        return self.model.readout(self.hidden, self.loop, self.context)

    def logits(self) -> Float[Tensor, "batch seq vocab"]:
        """Return this exit's next-token logits, [batch seq vocab]."""
        return self.model.head(self.features())

    def gate_logit(self) -> Float[Tensor, "batch seq"] | None:
        """Return the exit gate's logit at this loop, or None."""
        return self.model.exit_gate(self.hidden, self.loop, self.context)


def run_loops(
    model: AbstractLoopedLM,
    hidden: Float[Tensor, "batch seq dim"],
    first: int,
    context: LoopContext,
    gradient_loops: int | None = None,
) -> Generator[LoopState, Float[Tensor, "batch seq dim"] | None, None]:
    """Yield the states of loops `first` to the context's last, from the input of the first of them.

    Args:
        gradient_loops: see `unroll`.
    """
    depth = context.loops
    gradient_loops = depth if gradient_loops is None else gradient_loops
    for loop in range(first, depth + 1):
        with _recording(loop > depth - gradient_loops):
            hidden = model.core(hidden, loop, context)
        replaced = yield LoopState(loop, hidden, model, context)
        if replaced is not None:
            hidden = replaced
        if loop < depth:
            with _recording(loop + 1 > depth - gradient_loops):  # a carry belongs to the loop it leads to
                hidden = model.carry(hidden, loop, context)


def _recording(on: bool) -> AbstractContextManager[object]:
    """Record a gradient if the caller does, or not at all. Never open across a yield."""
    return nullcontext() if on else torch.no_grad()
