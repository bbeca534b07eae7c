"""Whether calling a module does more than its forward pass: who would listen to it, or take its place."""

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.module import _has_any_global_hook


def has_hooks(module: nn.Module) -> bool:
    """Return whether calling a module does more than its forward pass.

    A hook of every module (`register_module_forward_hook`, as counters of FLOPs and profilers set) is one of this
    module's, too.
    """
    forward = module._forward_hooks or module._forward_pre_hooks
    backward = module._backward_hooks or module._backward_pre_hooks
    # accelerate brings offloaded weights in a forward of the module's own.
    return bool(forward or backward or "forward" in vars(module) or _has_any_global_hook())


def any_has_hooks(modules: Iterable[nn.Module]) -> bool:
    """Return whether calling one of these modules does more than its forward pass."""
    return any(map(has_hooks, modules))
