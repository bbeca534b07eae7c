"""What stands in an exported model for parts of this package that it cannot bring along.

Settings without pydantic, variants without names of others' packages, PyTorch's own operations without those that are
fast on a CPU. `assembly` puts each in the place of what it stands for; a test holds both to the same numbers.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from loopscope.model.carries import (
    DampingCarry,
    DecayCarry,
    LayerNormCarry,
    ReadoutNormCarry,
    RMSNormCarry,
)
from loopscope.model.config import ModelConfig
from loopscope.model.initial_state import AbstractStart, EmbeddingStart, RandomStart, ZeroStart
from loopscope.model.injections import (
    AbstractInjection,
    AddInjection,
    ConcatInjection,
    GatedInjection,
    WriteInjection,
)
from loopscope.model.readouts.alpha import AlphaReadout
from loopscope.model.readouts.base import AbstractReadout
from loopscope.model.readouts.final_only import FinalOnlyReadout
from loopscope.model.readouts.normed import LayerNormReadout, RMSNormReadout
from loopscope.model.readouts.raw import RawReadout


class PlainSettings(SimpleNamespace):
    """Settings of a model: those of a config's sections, as attributes."""

    def __init__(self, **sections: Any) -> None:
        super().__init__(
            **{
                name: SimpleNamespace(**value) if isinstance(value, dict) else value
                for name, value in sections.items()
            }
        )


class PlainRMSNorm(nn.RMSNorm):
    """x / sqrt(mean(x²) + eps) · weight, over the last axis."""

    def __init__(
        self, dim: int, eps: float | None = None, elementwise_affine: bool = True, for_matmul: bool = False
    ) -> None:
        super().__init__(dim, eps=eps, elementwise_affine=elementwise_affine)


def plain_matrix(x: Tensor, module: Callable[[Tensor], Tensor]) -> Tensor:
    """Return what a matrix, or what stands in its place, makes of x."""
    return module(x)


def plain_call(layer: nn.Module, *inputs: Any) -> Any:
    """Return what a layer makes of its inputs."""
    return layer(*inputs)


def plain_gated(
    x: Tensor,
    gate: Callable[[Tensor], Tensor],
    up: Callable[[Tensor], Tensor],
    down: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return down(silu(gate x) · up x)."""
    return down(F.silu(gate(x)) * up(x))


def plain_add(hidden: Tensor, added: Tensor, dropout: nn.Module | None = None, observed: Any = ()) -> Tensor:
    """Return hidden + dropout(added)."""
    return hidden + (added if dropout is None else dropout(added))


def plain_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: float = 0.0,
    mask: Tensor | None = None,
    causal: bool = True,
) -> Tensor:
    """Return softmax(query keyᵀ / √head_dim) value."""
    grouped = query.shape[1] != key.shape[1]
    return F.scaled_dot_product_attention(
        query, key, value, mask, dropout, causal and mask is None, enable_gqa=grouped
    )


def plain_readout(config: ModelConfig) -> AbstractReadout:
    """Return the readout that a config names."""
    kinds: dict[str, Any] = {
        "rmsnorm": RMSNormReadout,
        "layernorm": LayerNormReadout,
        "raw": RawReadout,
        "final-only": FinalOnlyReadout,
        "alpha": AlphaReadout,
    }
    readout: AbstractReadout = kinds[config.readout.kind].from_config(config, None)
    return readout


def plain_carries(config: ModelConfig) -> nn.ModuleDict:
    """Return the carry's steps by name, in the order they are applied."""
    kinds: dict[str, Any] = {
        "rmsnorm": RMSNormCarry,
        "layernorm": LayerNormCarry,
        "readout-norm": ReadoutNormCarry,
        "damping": DampingCarry,
        "decay": DecayCarry,
    }
    return nn.ModuleDict({name: kinds[name].from_config(config, None) for name in config.carry})


def plain_share_norm(carries: nn.ModuleDict, reading: AbstractReadout) -> None:
    """Give the steps that use the readout's norm that norm."""
    for step in carries.values():
        if isinstance(step, ReadoutNormCarry):
            assert isinstance(reading.norm, nn.Module)
            step.share(reading.norm)


def plain_injection(config: ModelConfig) -> AbstractInjection | None:
    """Return the injection that a config names, or None."""
    kinds: dict[str, Any] = {
        "add": AddInjection,
        "gated": GatedInjection,
        "concat": ConcatInjection,
        "write": WriteInjection,
    }
    chosen = config.injection.kind
    return None if chosen == "none" else kinds[chosen].from_config(config, None)


def plain_start(config: ModelConfig) -> AbstractStart:
    """Return the start state that a config names."""
    kinds: dict[str, Any] = {"embedding": EmbeddingStart, "zero": ZeroStart, "random": RandomStart}
    start: AbstractStart = kinds[config.start].from_config(config, None)
    return start
