"""Where a fast operation takes the place of its plain formula: one predicate, by the operation's name.

`cpu_ops("off")` turns all of them off, `without_op("swiglu")` one alone: then the plain formula runs (`ops.reference`,
or PyTorch's own module). Both are context managers; a training run enters the first with `training.cpu_ops`.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from loopscope.hooks import any_has_hooks, has_hooks

Module = TypeVar("Module", bound=type[nn.Module])


@dataclass(frozen=True)
class Operation:
    """Where an operation may run at all.

    Attributes:
        everywhere: on any device; else on a CPU only.
        trains: only where a gradient is recorded.
        first_order: not within `sdpa_kernel(SDPBackend.MATH)`, which asks for second derivatives or counts products.
    """

    everywhere: bool = False
    trains: bool = True
    first_order: bool = True


OPERATIONS: dict[str, Operation] = {
    "rms_norm": Operation(everywhere=True, trains=False, first_order=False),
    "rms_norm_linear": Operation(),
    "linear": Operation(),
    "swiglu": Operation(),
    "attention": Operation(trains=False),
    "narrow_attention": Operation(trains=False),
    "dropout_add": Operation(),
    "add": Operation(),
    "linear_cross_entropy": Operation(everywhere=True, first_order=False),
    "one_token": Operation(trains=False),
    # Parts that several of them share:
    "shared_weight": Operation(trains=False, first_order=False),
    "scratch_buffer": Operation(trains=False, first_order=False),
    "cast_weight": Operation(trains=False, first_order=False),
}
"""What each is and saves: the table in `loopscope.ops`."""

_off: ContextVar[frozenset[str]] = ContextVar("off", default=frozenset())
_plain_types: set[type[nn.Module]] = {nn.Linear, nn.Dropout}


def cpu_ops_apply(
    name: str, x: Tensor, *replaced: nn.Module, observed: Iterable[nn.Module] | None = None
) -> bool:
    """Return whether the fast operation `name` computes here what plain PyTorch would.

    Args:
        name: of `OPERATIONS`.
        x: what it would work on.
        replaced: modules whose work it would do unseen. None of them may be of a user's own type, or have hooks.
        observed: modules whose hooks would see what it changes. None of them may have any.
    """
    if torch.compiler.is_compiling() or not is_on(name):
        return False
    operation = OPERATIONS[name]
    if not operation.everywhere and x.device.type != "cpu":
        return False
    if operation.trains and not torch.is_grad_enabled():
        return False
    if operation.first_order and not torch.backends.cuda.flash_sdp_enabled():
        return False
    return all(is_plain(module) for module in replaced) and not any_has_hooks(observed or ())


def is_on(name: str) -> bool:
    """Return whether an operation is neither turned off alone nor with all others."""
    return name not in _off.get()


def use_cpu_ops(setting: str) -> None:
    """Turn every fast operation off for the rest of the process (`off`), or leave them as they are (`auto`).

    Raises:
        ValueError: another setting.
    """
    _off.set(_off.get().union(_turned_off_by(setting)))


@contextmanager
def cpu_ops(setting: str) -> Iterator[None]:
    """Turn every fast operation off inside (`off`), or leave them as they are (`auto`).

    Raises:
        ValueError: another setting.
    """
    with _turned_off(_turned_off_by(setting)):
        yield


@contextmanager
def without_op(name: str) -> Iterator[None]:
    """Turn one operation off inside: for tests, and for `python -m benchmarks.ops`.

    Raises:
        ValueError: there is no such operation.
    """
    if name not in OPERATIONS:
        raise ValueError(f"there is no operation {name!r}; there are {', '.join(OPERATIONS)}")
    with _turned_off([name]):
        yield


def _turned_off_by(setting: str) -> Iterable[str]:
    if setting not in ("auto", "off"):
        raise ValueError(
            f"cpu_ops is {setting!r}; it must be 'auto' (fast operations where they apply) or 'off'"
        )
    return OPERATIONS if setting == "off" else ()


@contextmanager
def _turned_off(names: Iterable[str]) -> Iterator[None]:
    before = _off.set(_off.get().union(names))
    try:
        yield
    finally:
        _off.reset(before)


def plain_type(module: Module) -> Module:
    """Declare a class of modules whose forward pass an operation may do in its place (a decorator)."""
    _plain_types.add(module)
    return module


def is_plain(module: nn.Module) -> bool:
    """Return whether calling a module does what its type says and nothing else: no subclass, no hook."""
    return type(module) in _plain_types and not has_hooks(module)
