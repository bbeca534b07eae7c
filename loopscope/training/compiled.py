"""Layers through torch.compile, one graph for all layers and loops.

The compiled function takes the layer as an argument, so every layer of one shape shares one graph; the generator that
runs loops stays outside, so a drawn depth compiles nothing. Only training steps use it: validation, audits and the
monitor run other shapes and precisions, and would each compile again.
"""

from typing import Any

import torch
from torch import Tensor, nn

from loopscope.recurrence import AbstractLoopedLM


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
        return (self.compiled if fast else self.plain)(layer, *inputs)

    def __deepcopy__(self, memo: dict[int, Any]) -> "CompiledInTraining":
        return self  # it holds no weights: a copied model may share it
