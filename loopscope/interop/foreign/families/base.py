"""What every adapter of a known family shares: the module itself, what was recorded per unroll, and the check."""

from abc import abstractmethod
from collections import deque
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from loopscope.guards import evaluating
from loopscope.interop.foreign.tracing.forward_runs import disagreement, dtype_of, example, repeatable
from loopscope.interop.foreign.tracing.side_state import Extra, SideState
from loopscope.recurrence import AbstractLoopedLM, LoopContext, check_loops, unroll


class UnrollRecords:
    """What an adapter recorded of each unroll, found by the unroll's context and forgotten with it.

    `embed` comes before there is a context: what it records waits until the context with its tensor turns up.
    Copies start empty.
    """

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[LoopContext, Any] = WeakKeyDictionary()
        self._waiting: tuple[Tensor, Any] | None = None

    def offer(self, embedded: Tensor, recorded: Any) -> None:
        """Keep what was recorded for the unroll that starts from this tensor."""
        self._waiting = (embedded, recorded)

    def of(self, context: LoopContext) -> Any:
        """Return what was recorded for this unroll, or None."""
        if self._waiting is not None and self._waiting[0] is context.embedded:
            self.keep(context, self._waiting[1])
            self._waiting = None
        return self._kept.get(context)

    def keep(self, context: LoopContext, recorded: Any) -> None:
        """Keep what was recorded for this unroll."""
        self._kept[context] = recorded

    def __deepcopy__(self, memo: dict[int, Any]) -> "UnrollRecords":
        return UnrollRecords()

    def __reduce__(self) -> tuple[type["UnrollRecords"], tuple[()]]:
        return UnrollRecords, ()


class FamilyAdapter(AbstractLoopedLM):
    """A module of a known family as a looped model. The weights are the module's own, not a copy.

    Attributes:
        family: its name.
        module: the module, unchanged.
        sequence: tokens of the batch that the check runs; None: what the module takes.
    """

    family: ClassVar[str]
    narrows = False
    sequence: int | None = None

    def __init__(self, module: nn.Module, loops: Any) -> None:
        super().__init__()
        self.module = module
        self.training = module.training
        self.loops = check_loops(int(loops) if isinstance(loops, Tensor) else loops)
        self.records = UnrollRecords()
        self.own_start: Tensor | None = None

    @staticmethod
    @abstractmethod
    def recognises(module: nn.Module) -> bool:
        """Return whether the module has this family's structure: the attributes that its forward uses."""

    @abstractmethod
    def record(self, input_ids: Int[Tensor, "batch seq"]) -> Any:
        """Run the module's own forward as far as needed; return what its parts are called with."""

    @abstractmethod
    def start(self, recorded: Any) -> Float[Tensor, "batch seq dim"]:
        """Return the state that the first loop starts from, out of what `record` returned."""

    @abstractmethod
    def own_logits(self, input_ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq vocab"]:
        """Return the logits of the module's own forward at the trained depth.

        Where it starts from a random state, it leaves that state in `own_start`.
        """

    def at_depth(self, loops: int) -> AbstractContextManager[Mapping[str, Any]] | None:
        """Return a guard that sets the module's own forward to a depth, and gives what it is called with beside.

        None: text is not made by the module's own `generate`.
        """
        return None

    def embed(self, input_ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq dim"]:
        recorded = self._record_repeatably(input_ids)
        state = self.start(recorded)
        self.records.offer(state, recorded)
        return state

    def recorded(self, context: LoopContext) -> Any:
        """Return what `record` gave for this unroll; it runs now where the context was made by other hands."""
        recorded = self.records.of(context)
        if recorded is None:
            recorded = self._record_repeatably(context.input_ids)
            self.records.keep(context, recorded)
        return recorded

    def catch_up(self, context: LoopContext, loop: int) -> None:
        """Run the loops before `loop`, for what goes from loop to loop beside H_k and was not seen here yet."""
        hidden = self.start(self.recorded(context))
        for earlier in range(1, loop):
            hidden = self.carry(self.core(hidden, earlier, context), earlier, context)

    def caught_up(self, side: SideState[Extra], context: LoopContext, loop: int) -> SideState[Extra]:
        """Return what goes from loop to loop beside H_k, with every loop up to `loop` run."""
        if not side.knows(loop):
            self.catch_up(context, loop + 1)
        return side

    def _record_repeatably(self, input_ids: Tensor) -> Any:
        # A start state that the module draws at random is not used; drawing it must not disturb the caller's
        # random numbers. In training mode dropout needs them.
        with nullcontext() if self.module.training else repeatable(self.module):
            return self.record(input_ids)

    @torch.no_grad()
    def check(self) -> None:
        """Compare this adapter's logits with those of the module's own forward on a small random batch.

        Raises:
            ValueError: they disagree, or the module's own forward fails.
        """
        module = self.module
        with evaluating(module), repeatable(module):
            try:
                ids = example(module, self.own_logits, self.sequence)
                own = self.own_logits(ids)
                (last,) = deque(unroll(self, ids), maxlen=1)
                logits = last.logits()
            except Exception as error:
                raise ValueError(
                    f"{type(module).__name__} looks like {self.family}, but cannot be run as such "
                    f"({type(error).__name__}: {error})"
                ) from error
            finally:
                self.own_start = None
        difference = disagreement(logits, own, dtype_of(module))
        if difference is not None:
            raise ValueError(
                f"{type(module).__name__} looks like {self.family}, but at {self.loops} loops {difference}: "
                "this version does something that the adapter does not know. Use loopscope.wrap, which follows "
                "the module's own forward"
            )
