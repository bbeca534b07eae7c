"""How a module's own forward is run: what it is called with, at how many loops, and where its logits are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Int
from torch import Tensor, nn

from loopscope.interop.foreign.tracing.forward_runs import accepts, example, picked
from loopscope.interop.foreign.tracing.gradient_prefix import parts_with_settings, whole_gradient
from loopscope.interop.foreign.tracing.loop_count import LoopCount

Arguments = Mapping[str, Any] | Callable[[Tensor], Mapping[str, Any]]
ForwardInputs = Callable[[Tensor], tuple[Any, ...]]


@dataclass
class OwnForward:
    """A module's forward, as it is run for ids.

    Attributes:
        arguments: its keywords, or a function from ids to them.
        count: sets how many loops it runs.
        inputs: what it is called with in place of ids; None: ids.
        makes_cache: whether it is left to make the cache that it cannot do without.
        logits_at: where in its result the logits are; see `picked`.
        sequence: tokens of a batch that it takes, where only some length will do.
    """

    module: nn.Module
    arguments: Arguments
    count: LoopCount
    inputs: ForwardInputs | None = None
    makes_cache: bool = False
    logits_at: str | int | Callable[[Any], Any] | None = None
    sequence: int | None = None

    def __post_init__(self) -> None:
        self.settings = parts_with_settings(self.module)

    def run(self, input_ids: Int[Tensor, "batch seq"], loops: int | None) -> Any:
        """Run it undisturbed, set to `loops` where that is a number; return what it returns of logits."""
        given = self.arguments(input_ids) if callable(self.arguments) else self.arguments
        cache = {"use_cache": False} if not self.makes_cache and accepts(self.module, "use_cache") else {}
        called_with = (input_ids,) if self.inputs is None else self.inputs(input_ids)
        with self.count.at(loops) as counted, whole_gradient(self.settings):
            return picked(self.module(*called_with, **{**cache, **given, **counted}), self.logits_at)

    def example(self, loops: int | None) -> Int[Tensor, "batch seq"]:
        """Return a small random batch of ids that it takes at this many loops; errors are `forward_runs.example`'s."""
        return example(self.module, lambda ids: self.run(ids, loops), self.sequence)
