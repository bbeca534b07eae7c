"""Ouro (LoopLM; remote code of its checkpoints): all layers, then the norm, once per loop.

H_k is the input of `model.norm`. The norm's output is the next loop's input, what the head reads, and what
`early_exit_gate` reads. Each layer is called with what the module's own first loop called it with, plus the
loop's index where the layer takes one (it only picks a cache slot).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from loopscope.interop.foreign.families.base import FamilyAdapter
from loopscope.interop.foreign.tracing.calls import Call, ForwardStop, recording, stand_in
from loopscope.interop.foreign.tracing.forward_runs import accepts, logits_of
from loopscope.interop.foreign.tracing.loop_count import LoopCount
from loopscope.recurrence import LoopContext


class Ouro(FamilyAdapter):
    """Adapter of Ouro's `OuroForCausalLM`: all layers, then the norm, once per loop."""

    family = "Ouro"

    def __init__(self, module: Any) -> None:
        loops = getattr(module.model, "total_ut_steps", None) or module.config.total_ut_steps
        super().__init__(module, loops)

    @staticmethod
    def recognises(module: nn.Module) -> bool:
        inner = getattr(module, "model", None)
        return hasattr(module, "lm_head") and all(
            hasattr(inner, name) for name in ("layers", "norm", "early_exit_gate")
        )

    @property
    def _inner(self) -> Any:
        return self.module.model

    def record(self, input_ids: Int[Tensor, "batch seq"]) -> list[Call]:
        def stop(own: Any) -> Any:
            def forward(*args: Any, **kwargs: Any) -> None:
                raise ForwardStop(None)

            return forward

        try:
            with recording(list(self._inner.layers)) as calls, stand_in(self._inner.norm, stop):
                self.module(input_ids, use_cache=False)
        except ForwardStop:
            pass
        return [replace(calls[0], output=None), *(call.without_states() for call in calls[1:])]

    def start(self, recorded: list[Call]) -> Float[Tensor, "batch seq dim"]:
        return recorded[0].hidden

    def core(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        for call in self.recorded(context):
            hidden = call.repeat(hidden, current_ut=loop - 1)
        return hidden

    def carry(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        normed: Tensor = self._inner.norm(hidden)
        return normed

    def readout(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        normed: Tensor = self._inner.norm(hidden)
        return normed

    def head(self, features: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocab"]:
        logits: Tensor = self.module.lm_head(features)  # type: ignore[operator]
        return logits

    def exit_gate(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq"] | None:
        logit: Tensor = self._inner.early_exit_gate(self._inner.norm(hidden))
        return logit.squeeze(-1)

    def gate_alone(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq"] | None:
        with torch.no_grad():  # the norm is the language model's
            read = self._inner.norm(hidden)
        logit: Tensor = self._inner.early_exit_gate(read)
        return logit.squeeze(-1)

    @contextmanager
    def at_depth(self, loops: int) -> Iterator[Mapping[str, Any]]:
        held = {"model": self._inner, "config": getattr(self.module, "config", None)}
        holders = [f"{name}.total_ut_steps" for name, part in held.items() if hasattr(part, "total_ut_steps")]
        last = {"exit_at_step": loops - 1} if accepts(self.module, "exit_at_step") else {}
        with LoopCount(self.module, holders).at(loops):
            yield last

    def own_logits(self, input_ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq vocab"]:
        # A threshold in the config may make the module leave earlier; its last exit is what is compared.
        last = {"exit_at_step": self.loops - 1} if accepts(self.module, "exit_at_step") else {}
        return logits_of(self.module(input_ids, use_cache=False, **last))
