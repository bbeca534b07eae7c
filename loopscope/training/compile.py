"""Layers through torch.compile on CUDA, one graph for all layers and loops; on a CPU chains of passes are.

The compiled function takes the layer as an argument, so every layer of one shape shares one graph; the generator that
runs loops stays outside, so a drawn depth compiles nothing. Only training steps use it: validation, audits and the
monitor run other shapes and precisions, and would each compile again.
"""

from typing import Any

import torch
from torch import Tensor, nn

from loopscope.machine_limits import compiler_missing
from loopscope.recurrence import AbstractLoopedLM

WORTH_COMPILING = 5e14
"""FLOPs of a run from which `auto` compiles on a CPU: a quarter of an hour of two fast cores in bf16."""

WORTH_SECONDS = 200.0
"""Those FLOPs at the speed of such cores' products, for a CPU whose own is known: a slow one compiles sooner."""


def is_fused(
    setting: bool | str,
    device: torch.device,
    flops: float | None,
    fuses: bool | None = None,
    peak: float | None = None,
) -> bool:
    """Return whether a run on a CPU has its chains of passes compiled.

    Args:
        setting: `training.compile`.
        flops: of the whole run; None: not counted.
        fuses: whether a compiled chain is faster on this CPU; None: not tried.
        peak: FLOP/s of its products; None: not measured, and `WORTH_COMPILING` says what a long run is.

    Raises:
        ValueError: it was asked for, and there is no C++ compiler.
    """
    if device.type != "cpu" or setting is False:
        return False
    if setting == "auto":
        worth = WORTH_COMPILING if peak is None else WORTH_SECONDS * peak
        return compiler_missing() is None and fuses is not False and flops is not None and flops >= worth
    if missing := compiler_missing():
        raise ValueError(
            f"training.compile is on, which takes a C++ compiler on a CPU, and {missing}; install one, or turn it off"
        )
    return True


def compile_layers(model: AbstractLoopedLM) -> None:
    """Have a model's layers compiled in training steps.

    Raises:
        ValueError: a model that does not say how it runs a layer (`run_layer`).
    """
    if not hasattr(model, "run_layer"):
        raise ValueError(
            f"training.compile is on, but {type(model).__name__} has no `run_layer` to compile; turn it off"
        )
    setattr(model, "run_layer", CompiledInTraining(model.run_layer))  # noqa: B010 (the waist does not declare it)


class CompiledInTraining:
    """Compiled where a gradient is recorded in training mode, the plain call elsewhere."""

    def __init__(self, plain: Any) -> None:
        self.plain = plain
        self.compiled = torch.compile(plain, dynamic=False)

    def __call__(self, layer: nn.Module, *inputs: Any) -> Tensor:
        fast = layer.training and torch.is_grad_enabled()
        hidden: Tensor = (self.compiled if fast else self.plain)(layer, *inputs)
        return hidden

    def __deepcopy__(self, memo: dict[int, Any]) -> "CompiledInTraining":
        return self  # it holds no weights: a copied model may share it
