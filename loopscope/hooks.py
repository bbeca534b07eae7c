"""Whether calling a module does more than its forward pass: who would listen to it, or take its place."""

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.module import _has_any_global_hook


def has_hooks(module: nn.Module) -> bool:
    """Return whether calling a module does more than its forward pass.

    A hook of every module (`register_module_forward_hook`, as counters of FLOPs and profilers set) is one of this
    module's, too.
    """
    return bool(_has_any_global_hook()) or _has_own(module)


def any_has_hooks(modules: Iterable[nn.Module]) -> bool:
    """Return whether calling one of these modules does more than its forward pass."""
    asked = list(modules)
    return bool(asked) and (bool(_has_any_global_hook()) or any(map(_has_own, asked)))


def _has_own(module: nn.Module) -> bool:
    forward = module._forward_hooks or module._forward_pre_hooks
    # accelerate brings offloaded weights in a forward of the module's own.
    return bool(
        forward or module._backward_hooks or module._backward_pre_hooks or "forward" in module.__dict__
    )
