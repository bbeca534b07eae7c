"""Calls of a module's parts up to one of them, remembered: a head that is handed other features needs none of them.

What a forward does behind its head (a crop, a softcap, a scale per token) is run for other features by a run of the
whole forward. What precedes the head there is answered with what it gave before: its values go nowhere, and only its
shapes are looked at.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from loopscope.interop.foreign.tracing.calls import Forward, stand_in

Remembered = Mapping[nn.Module, list[Any]]


@contextmanager
def remembering(until: nn.Module) -> Iterator[dict[nn.Module, list[Any]]]:
    """Remember what the outermost parts that end before the first call of `until` return, in order, by part."""
    found: dict[nn.Module, list[Any]] = {}
    ended: list[tuple[nn.Module, Any]] = []
    begun: list[int] = []
    reached = False

    def before(part: nn.Module, args: Any) -> None:
        nonlocal reached
        if part is until and not reached:
            reached = True
            for done, output in ended:
                found.setdefault(done, []).append(output)
        begun.append(len(ended))

    def after(part: nn.Module, args: Any, output: Any) -> None:
        start = begun.pop()
        if not reached:
            ended[start:] = [(part, output)]  # what it called itself is within it

    handles = [register_module_forward_pre_hook(before), register_module_forward_hook(after)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def answering(remembered: Remembered) -> Iterator[None]:
    """Answer the first calls of these parts with what is remembered of them; later ones run."""

    def watched(outputs: list[Any]) -> Callable[[Forward], Forward]:
        left = iter(outputs)

        def answer(original: Forward) -> Forward:
            def forward(*args: Any, **kwargs: Any) -> Any:
                for output in left:
                    return output
                return original(*args, **kwargs)

            return forward

        return answer

    with ExitStack() as stack:
        for part, outputs in remembered.items():
            stack.enter_context(stand_in(part, watched(outputs)))
        yield
