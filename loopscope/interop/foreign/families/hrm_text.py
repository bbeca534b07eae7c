"""HRM-Text (in transformers, `hrm_text`): two stacks; one loop is one high cycle.

A cycle runs the low stack `L_cycles` times on z_L + z_H, then the high stack on z_H + z_L. Each stack ends in a
norm. H_k is what the high stack's layers put out before that norm, in cycle k; the norm is the step between
loops and, the head being a plain matrix, the readout. z_L goes from cycle to cycle beside H_k.

The module runs the earlier low passes without gradient (`L_bp_cycles`); here every pass has one.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from loopscope.interop.foreign.families.two_stacks import LOW, Beside, TwoStacks
from loopscope.interop.foreign.tracing.calls import first_call, stand_in
from loopscope.interop.foreign.tracing.forward_runs import logits_of
from loopscope.interop.foreign.tracing.side_state import SideState
from loopscope.recurrence import LoopContext


@dataclass
class _Recorded:
    arguments: Mapping[str, Any]  # of every stack call: mask, rotary table, positions
    embedded: Tensor
    beside: SideState[Beside]  # z_L


class HrmText(TwoStacks):
    """Adapter of transformers' `HrmTextForCausalLM`: one loop is one high cycle."""

    family = "HRM-Text"

    def __init__(self, module: Any) -> None:
        super().__init__(module, module.config.H_cycles)
        self.low_cycles: int = module.config.L_cycles

    @staticmethod
    def recognises(module: nn.Module) -> bool:
        inner = getattr(module, "model", None)
        return hasattr(module, "lm_head") and hasattr(inner, "L_module") and hasattr(inner, "H_module")

    @property
    def _inner(self) -> Any:
        return self.module.model

    @contextmanager
    def at_depth(self, loops: int) -> Iterator[Mapping[str, Any]]:
        # The cache has a slot per call of a layer, as many as the config calls its hidden layers.
        config: Any = self.module.config
        before = config.H_cycles, config.num_hidden_layers
        calls = loops * (self.low_cycles + 1) * config.num_layers_per_stack
        config.H_cycles, config.num_hidden_layers = loops, calls
        try:
            yield {}
        finally:
            config.H_cycles, config.num_hidden_layers = before

    def record(self, input_ids: Int[Tensor, "batch seq"]) -> _Recorded:
        call = first_call(lambda: self.module(input_ids, use_cache=False), self._inner.L_module)
        arguments = {name: value for name, value in call.kwargs.items() if name != call.slot}
        scale = getattr(self._inner, "embedding_scale", 1.0)
        embedded = self._inner.embed_tokens(input_ids) * scale
        low = self._inner.z_L_init.to(embedded).expand_as(embedded)
        return _Recorded(arguments, embedded, SideState({LOW: low}))

    def start(self, recorded: _Recorded) -> Float[Tensor, "batch seq dim"]:
        return recorded.embedded

    def cycle(
        self, recorded: _Recorded, hidden: Float[Tensor, "batch seq dim"], beside: Beside
    ) -> tuple[Float[Tensor, "batch seq dim"], Beside]:
        low = beside[LOW]
        for _ in range(self.low_cycles):
            low = self._inner.L_module(low + hidden, **recorded.arguments)
        high = self._inner.H_module
        with stand_in(high.final_norm, lambda own: lambda state: state):
            raw: Tensor = high(hidden + low, **recorded.arguments)
        return raw, {LOW: low}

    def between(self, hidden: Float[Tensor, "batch seq dim"]) -> Float[Tensor, "batch seq dim"]:
        normed: Tensor = self._inner.H_module.final_norm(hidden)
        return normed

    def readout(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        return self.between(hidden)

    def head(self, features: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocab"]:
        logits: Tensor = self.module.lm_head(features)  # type: ignore[operator]
        return logits

    def own_logits(self, input_ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq vocab"]:
        return logits_of(self.module(input_ids, use_cache=False))
