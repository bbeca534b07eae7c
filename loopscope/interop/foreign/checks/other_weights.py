"""The module with other weights for a while: what two parts do alike may be a coincidence of the weights they have.

A softcap does nothing to the small logits of a fresh model, and norms that all start at one are one norm. So `wrap`
checks a model on its own weights, and on others.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from loopscope.interop.foreign.tracing.forward_runs import dtype_of, logits_of
from loopscope.interop.foreign.tracing.traced_model import TracedModel
from loopscope.wide_weights import WIDE, widened_to_run

CHANGE = 0.2
"""Standard deviation of what is added to each number, as a share of its tensor's RMS."""
LARGE_LOGITS = 20.0
"""What the largest logit is brought to: a softcap, usually of 15 to 50, then shows."""
MOST = 2**30
"""Numbers up to which all weights are drawn anew; in a larger model vectors and the head alone, to save memory."""
KNOWN = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@contextmanager
def checked_in_fp32(model: TracedModel) -> Iterator[None]:
    """Widen the weights of a module in half precision while it is checked: differences say nothing otherwise.

    Left as it is where that would take gigabytes, or where its forward runs in no other type.
    """
    module = model.module
    with ExitStack() as stack:
        if dtype_of(module) not in WIDE and sum(p.numel() for p in module.parameters()) <= MOST:
            stack.enter_context(widened_to_run(module, lambda: _runs(model)))
            if not _runs(model):
                stack.close()
        yield


def _runs(model: TracedModel) -> bool:
    try:
        model.interceptor.own.example(model.trained_count)
    except Exception:
        return False
    return True


def enlarging(output: Any) -> float:
    """Return what the head's matrix is to be multiplied by, for logits that a cap would show in."""
    largest = float(logits_of(output).detach().abs().max())
    return max(1.0, LARGE_LOGITS / largest) if 0 < largest < float("inf") else 1.0


@contextmanager
def other_weights(module: nn.Module, head: object, factor: float = 1.0) -> Iterator[None]:
    """Change a module's weights in place for a while; the same bits come back afterwards.

    Args:
        head: the part that makes the logits, or a function.
        factor: what its matrix is multiplied by.
    """
    own = list(module.parameters())
    heads = {id(parameter) for parameter in head.parameters()} if isinstance(head, nn.Module) else set()
    whole = sum(parameter.numel() for parameter in own) <= MOST
    changed = [p for p in own if p.dtype in KNOWN and (whole or p.ndim < 2 or id(p) in heads)]
    before: list[tuple[Tensor, Tensor]] = []
    draws = torch.Generator().manual_seed(4)
    try:
        with torch.no_grad():
            for parameter in changed:
                data = parameter.data
                before.append((data, data.clone()))
                data.add_(CHANGE * _drawn_like(data, draws))
                if id(parameter) in heads and data.ndim >= 2:
                    data.mul_(factor)
        yield
    finally:
        with torch.no_grad():
            for data, kept in before:
                data.copy_(kept)


def _drawn_like(data: Tensor, draws: torch.Generator) -> Tensor:
    """Normal numbers of the tensor's own RMS. An all-zero tensor stays: what is shut off is not opened."""
    size = data.float().square().mean().sqrt() if data.numel() else torch.zeros(())
    noise: Tensor = torch.randn(data.shape, generator=draws).to(data.device) * size
    return noise.to(data.dtype)
