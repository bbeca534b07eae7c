"""Something else in the place of a module's forward (or core) for a while: it may look, and change what goes through.

Not hooks: whoever follows a model's forward may have put something in the place of the same forward, further out, that
answers some calls without it. What stands here sees the calls that are computed, and no others.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

ModuleForward = Callable[..., Any]


@contextmanager
def exchanged(
    module: nn.Module, answer: Callable[[ModuleForward], ModuleForward], name: str = "forward"
) -> Iterator[None]:
    """Make `answer(what is there)` the module's forward inside; afterwards it is as it was."""
    own = module.__dict__.get(name)
    setattr(module, name, answer(getattr(module, name)))
    try:
        yield
    finally:
        if own is None:
            delattr(module, name)
        else:
            setattr(module, name, own)
