"""What Huginn and Parcae share: a prelude, a core that loops with the prelude's output injected, a coda.

    prelude -> e        adapter(state, e) -> core_block    (per loop)        coda -> head

H_k is the output of `core_block[-1]`. The adapter turns it into the next loop's input, so it is the carry; the
state that the first loop starts from is the adapter's output on the start state. The readout is whatever the
module's forward runs between the core and the head, in the same order.

The start state is random in both families. Here it is zero: the same for every batch and every length, so that
an audit repeats and a token's states do not depend on what follows it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from loopscope.interop.foreign.families.base import FamilyAdapter
from loopscope.interop.foreign.tracing.calls import Call, is_float, recording, state_of
from loopscope.interop.foreign.tracing.forward_runs import accepts, logits_of
from loopscope.recurrence import LoopContext

_CONTAINERS = ("prelude", "core_block", "coda")
_PARTS = (*_CONTAINERS, "adapter", "ln_f")


@dataclass(frozen=True)
class _Recorded:
    adapter: Call
    core: Sequence[Call]
    tail: Sequence[Call]  # after the core, before the head
    own_start: Tensor  # the start state that the module drew itself
    injected: Tensor  # the prelude's output


class RecurrentDepth(FamilyAdapter):
    """Adapter of a module with `transformer.{prelude, adapter, core_block, coda, ln_f}` and `lm_head`."""

    def __init__(self, module: Any) -> None:
        loops = getattr(getattr(module, "config", None), "mean_recurrence", None)
        if loops is None:
            raise ValueError(
                f"{type(module).__name__} has the parts of {self.family}, but no config.mean_recurrence, which holds "
                "its trained depth. Set it, or name the parts: loopscope.wrap(module, "
                'block="transformer.core_block", loops=K, set_loops=lambda n: {"num_steps": (0, n)})'
            )
        super().__init__(module, loops)

    @staticmethod
    def has_parts(module: nn.Module) -> bool:
        """Return whether the module has the five parts of `transformer`, and a head."""
        transformer = getattr(module, "transformer", None)
        return hasattr(module, "lm_head") and all(hasattr(transformer, name) for name in _PARTS)

    def _steps(self, loops: int) -> Mapping[str, Any]:
        """Forward arguments for this many loops, all with gradient: (without, with)."""
        name = "num_steps_pair" if accepts(self.module, "num_steps_pair") else "num_steps"
        wanted = {"return_logits": True} if accepts(self.module, "return_logits") else {}
        return {name: torch.tensor([0, loops]), **wanted}

    @property
    def _head(self) -> Any:
        return self.module.lm_head

    def record(self, input_ids: Int[Tensor, "batch seq"]) -> _Recorded:
        return self._record(input_ids, 1)[0]

    def _record(self, input_ids: Tensor, loops: int) -> tuple[_Recorded, Any]:
        transformer: Any = self.module.transformer
        core, adapter, head = list(transformer.core_block), transformer.adapter, self._head
        norms = [part for name, part in transformer.named_children() if name not in ("wte", *_CONTAINERS)]
        with recording([adapter, *core, head, *norms, *transformer.coda]) as calls:
            output = self.module(input_ids, **self._steps(loops))
        order = [call.module for call in calls]
        if adapter not in order or head not in order:
            missing = "adapter" if adapter not in order else "lm_head"
            raise ValueError(
                f"its forward never calls its {missing}; without it the parts cannot be told apart"
            )
        last = max(index for index, part in enumerate(order) if part is core[-1])
        first = calls[order.index(adapter)]
        start, injected = _apart(first, state_of(calls[last].output).shape[-1])
        recorded = _Recorded(
            adapter=replace(first, output=None),
            core=[calls[order.index(part)].without_states() for part in core],
            tail=[call.without_states() for call in calls[last + 1 : order.index(head, last)]],
            own_start=start,
            injected=injected,
        )
        return recorded, output

    def start(self, recorded: _Recorded) -> Float[Tensor, "batch seq dim"]:
        state = torch.zeros_like(recorded.own_start) if self.own_start is None else self.own_start
        return _inject(recorded, state)

    def core(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        for call in self.recorded(context).core:
            hidden = call.repeat(hidden)
        return hidden

    def carry(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        return _inject(self.recorded(context), hidden)

    def readout(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq features"]:
        for call in self.recorded(context).tail:
            hidden = call.repeat(hidden)
        return hidden

    def head(self, features: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocab"]:
        config: Any = self.module.config
        logits: Tensor = self._head(features)
        logits = logits * getattr(getattr(config, "init", None), "logit_scale", 1.0)
        softcap = getattr(config, "logit_softcap", None)
        return logits if softcap is None else softcap * torch.tanh(logits / softcap)

    def own_logits(self, input_ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq vocab"]:
        recorded, output = self._record(input_ids, self.loops)
        self.own_start = recorded.own_start
        return logits_of(output)


def _apart(call: Call, width: int) -> tuple[Tensor, Tensor]:
    """State and injected input of an adapter's call: two tensors, or one beside the other in one tensor."""
    tensors = [value for value in (*call.args, *call.kwargs.values()) if is_float(value)]
    if len(tensors) > 1:
        return tensors[0], tensors[1]
    if tensors[0].shape[-1] <= width:
        raise ValueError("its adapter is called with the state alone; where the prelude goes is not known")
    return tensors[0][..., :width], tensors[0][..., width:]


def _inject(recorded: _Recorded, state: Tensor) -> Tensor:
    call = recorded.adapter
    if call.hidden.shape == state.shape:
        return call.repeat(state)
    return call.repeat(torch.cat([state, recorded.injected], dim=-1))
