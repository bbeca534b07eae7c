"""Loops that a module runs without a gradient: they have one for a while, by its own setting or in spite of it.

A model that keeps memory down runs its first loops, or the first passes of a loop, under `torch.no_grad`, in evaluation
too. What a loss sees of them would then be missing in every measurement, though not in what the structure does.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

GRADIENT_SETTINGS: Mapping[str, Callable[[Any], Any]] = {
    # HRM-Text: how many of a cycle's low passes have a gradient, for every cycle. The part's copy is what counts.
    "L_bp_cycles_padded": lambda config: [config.L_cycles] * config.H_cycles,
}
"""Attributes that say which loops have a gradient, and what lets all of them have one, of the part's config."""


def parts_with_settings(module: nn.Module) -> list[nn.Module]:
    """Return the parts of a module that have such a setting, and a config that says what is all."""
    return [
        part
        for part in module.modules()
        if hasattr(part, "config") and any(name in vars(part) for name in GRADIENT_SETTINGS)
    ]


@contextmanager
def whole_gradient(parts: Sequence[nn.Module]) -> Iterator[None]:
    """Set all such settings of these parts so that every loop has a gradient. Put back afterwards."""
    before: list[tuple[Any, str, Any]] = []
    try:
        for part in parts:
            for name, everything in GRADIENT_SETTINGS.items():
                if name in vars(part):
                    before.append((part, name, vars(part)[name]))
                    setattr(part, name, everything(part.config))
        yield
    finally:
        for part, name, value in before:
            setattr(part, name, value)


class KeptGradient(TorchFunctionMode):
    """While it is on, nothing switches gradients off (`no_grad`, `set_grad_enabled`), if they are on when it begins."""

    def __init__(self) -> None:
        super().__init__()
        self.recorded = torch.is_grad_enabled()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch._C._set_grad_enabled and self.recorded:
            args = (True,)
        return func(*args, **(kwargs or {}))
