"""x-transformers with `looped=True`: `attn_layers` runs once per loop, its output is the next input.

Nothing is done between loops, but the layers must be built with `pre_and_post_norm`, so `attn_layers` itself ends
in a norm. H_k is its output; the head reads it as it is, and so does the exit gate. Memory tokens, where there
are some, go from loop to loop beside H_k and are remembered per unroll.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from loopscope.interop.foreign.families.base import FamilyAdapter
from loopscope.interop.foreign.tracing.calls import Call, first_call
from loopscope.interop.foreign.tracing.forward_runs import logits_of
from loopscope.interop.foreign.tracing.side_state import SideState
from loopscope.recurrence import LoopContext, LoopState

_UNKNOWN = {
    "cls_token": "use_cls_token",
    "attn_pool": "attn_pool",
    "to_mixture": "mixture_of_softmax",
    "average_pool_embed": "average_pool_embed",
    "has_multiple_heads": "num_output_heads above 1",
    "squeeze_out_last_dim": "squeeze_out_last_dim",
    "memory_tokens_interspersed_every": "memory_tokens_interspersed_every",
}


@dataclass
class _Recorded:
    call: Call
    memories: SideState[Tensor]  # states of the memory tokens


class XTransformers(FamilyAdapter):
    """Adapter of x-transformers' `TransformerWrapper(looped=True)`."""

    family = "x-transformers (looped=True)"

    def __init__(self, module: Any) -> None:
        values = {option: getattr(module, name, None) for name, option in _UNKNOWN.items()}
        options = [option for option, value in values.items() if value is not None and value is not False]
        if options:
            raise ValueError(
                f"this x-transformers model is built with {', '.join(options)}, which the adapter does not know; "
                "build it without, or use loopscope.wrap"
            )
        super().__init__(module, module.train_max_looped_steps)
        self.memory_tokens: int = getattr(module, "num_memory_tokens", 0) or 0

    @staticmethod
    def recognises(module: nn.Module) -> bool:
        return bool(getattr(module, "looped", False)) and all(
            hasattr(module, name) for name in ("attn_layers", "to_logits", "train_max_looped_steps")
        )

    def record(self, input_ids: Int[Tensor, "batch seq"]) -> _Recorded:
        layers: Any = self.module.attn_layers
        call = first_call(lambda: self.module(input_ids), layers)
        return _Recorded(call, SideState(self._split(call.hidden)[0]))

    def start(self, recorded: _Recorded) -> Float[Tensor, "batch seq dim"]:
        return self._split(recorded.call.hidden)[1]

    def _split(self, packed: Tensor) -> tuple[Tensor, Tensor]:
        return packed[:, : self.memory_tokens], packed[:, self.memory_tokens :]

    def core(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        recorded: _Recorded = self.recorded(context)
        if not self.memory_tokens:
            return recorded.call.repeat(hidden)
        earlier = self.caught_up(recorded.memories, context, loop - 1)
        packed = torch.cat([earlier.of_input(hidden, loop), hidden], dim=1)
        memories, state = self._split(recorded.call.repeat(packed))
        recorded.memories.after_core(state, loop, memories)
        return state

    def carry(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        if self.memory_tokens:
            memories = self.caught_up(self.recorded(context).memories, context, loop)
            memories.after_carry(hidden, loop, memories.of_state(hidden, loop))
        return hidden

    def rejoin(self, state: LoopState) -> None:
        if self.memory_tokens:
            self.caught_up(self.recorded(state.context).memories, state.context, state.loop).rejoin()

    def beside(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Mapping[str, Float[Tensor, "..."]]:
        if not self.memory_tokens:
            return {}
        memories = self.caught_up(self.recorded(context).memories, context, loop)
        return {"memory tokens": memories.of_state(hidden, loop)}

    def put_beside(self, state: LoopState, side: Mapping[str, Float[Tensor, "..."]]) -> None:
        memories = self.caught_up(self.recorded(state.context).memories, state.context, state.loop)
        memories.put(state.loop, side["memory tokens"])

    def readout(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        return hidden

    def head(self, features: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocab"]:
        logits: Tensor = self.module.to_logits(features)  # type: ignore[operator]
        if getattr(self.module, "sigsoftmax_logits", False):
            logits = logits + logits.sigmoid().log()
        return logits

    def exit_gate(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq"] | None:
        gate: Any = self.module.exit_gate
        return None if gate is None else gate(hidden).squeeze(-1)

    def own_logits(self, input_ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq vocab"]:
        return logits_of(self.module(input_ids))
