"""HRM and TinyRecursiveModels (TRM), the models for puzzles: a carry and a batch in and out, states of one length.

A cycle runs the low stack `L_cycles` times on z_L + (z_H + embedded), then the high one on z_H + z_L; in TRM both are
one module. Every layer ends in a norm. One loop is one high cycle, H_k its z_H at the tokens; z_L goes from cycle to
cycle beside it, and so do both at the positions before the tokens, which hold the puzzle's embedding. The head is a
matrix.

The module runs all cycles but the last under `torch.no_grad`; here every cycle has a gradient. What is run is one step
of halting, from a fresh carry.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from loopscope.interop.foreign.families.two_stacks import LOW, Beside, TwoStacks
from loopscope.interop.foreign.tracing.calls import first_call
from loopscope.interop.foreign.tracing.forward_runs import new_carry
from loopscope.interop.foreign.tracing.side_state import SideState
from loopscope.recurrence import LoopContext

PUZZLE = "puzzle positions"


@dataclass
class _Recorded:
    arguments: Mapping[str, Any]  # of every stack call: rotary tables
    embedded: Tensor  # of puzzle and tokens, which every low pass adds
    start: Tensor  # z_H at the tokens
    beside: SideState[Beside]


class Reasoning(TwoStacks):
    """Adapter of HRM's and TRM's `…_ACTV1`: one loop is one high cycle."""

    family = "HRM, TRM"

    def __init__(self, module: Any) -> None:
        config = module.inner.config
        super().__init__(module, config.H_cycles)
        self.low_cycles: int = config.L_cycles
        self.puzzle_positions = int(getattr(module.inner, "puzzle_emb_len", 0))
        self.sequence = self.positions_limit = getattr(config, "seq_len", None)
        self.remarks = (
            f"The forward of {type(module).__name__} runs all cycles but its last without a gradient "
            "(torch.no_grad). Here they have one: what is said holds of the structure, and in its training no loss "
            "reaches them.",
        )

    @staticmethod
    def recognises(module: nn.Module) -> bool:
        inner = getattr(module, "inner", None)
        config = getattr(inner, "config", None)
        return (
            callable(getattr(module, "initial_carry", None))
            and all(isinstance(getattr(inner, name, None), Tensor) for name in ("H_init", "L_init"))
            and all(hasattr(inner, name) for name in ("L_level", "lm_head", "_input_embeddings"))
            and all(type(getattr(config, name, None)) is int for name in ("H_cycles", "L_cycles"))
        )

    @property
    def _inner(self) -> Any:
        return self.module.inner

    def record(self, input_ids: Int[Tensor, "batch seq"]) -> _Recorded:
        if self.sequence not in (None, input_ids.shape[1]):
            raise ValueError(
                f"the texts have {input_ids.shape[1]} tokens, and {type(self.module).__name__} was made for "
                f"{self.sequence} (config.seq_len) and takes no others"
            )
        inner, (carry, batch) = self._inner, new_carry(self.module, input_ids)
        call = first_call(lambda: self.module(carry, batch), inner.L_level)
        tensors = {name for name, value in call.kwargs.items() if isinstance(value, Tensor)}
        arguments = {name: value for name, value in call.kwargs.items() if name not in tensors}
        embedded = inner._input_embeddings(batch["inputs"], batch["puzzle_identifiers"])
        high, low = (start.to(embedded).expand_as(embedded) for start in (inner.H_init, inner.L_init))
        beside = {LOW: low}
        if self.puzzle_positions:
            beside[PUZZLE] = high[:, : self.puzzle_positions]
        return _Recorded(arguments, embedded, high[:, self.puzzle_positions :], SideState(beside))

    def start(self, recorded: _Recorded) -> Float[Tensor, "batch seq dim"]:
        return recorded.start

    def cycle(
        self, recorded: _Recorded, hidden: Float[Tensor, "batch seq dim"], beside: Beside
    ) -> tuple[Float[Tensor, "batch seq dim"], Beside]:
        inner, low = self._inner, beside[LOW]
        high = torch.cat([beside[PUZZLE], hidden], dim=1) if self.puzzle_positions else hidden
        for _ in range(self.low_cycles):
            low = inner.L_level(low, high + recorded.embedded, **recorded.arguments)
        high = getattr(inner, "H_level", inner.L_level)(high, low, **recorded.arguments)
        after: dict[str, Tensor] = {LOW: low}
        if self.puzzle_positions:
            after[PUZZLE] = high[:, : self.puzzle_positions]
        return high[:, self.puzzle_positions :], after

    def readout(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        return hidden

    def head(self, features: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocab"]:
        logits: Tensor = self._inner.lm_head(features)
        return logits

    def own_logits(self, input_ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq vocab"]:
        logits: Tensor = self.module(*new_carry(self.module, input_ids))[1]["logits"]
        return logits
