"""FLOPs of a model that no formula knows: counted on one window, by a forward at every depth.

`torch.utils.flop_counter` counts matrix products, two FLOPs per multiply-add, and convolutions. Attention runs by plain
products meanwhile, because the counter does not know the CPU's fused kernel: the whole square of scores counts, as in
`loopscope.plan.flops`. Norms, activations and softmaxes are left out.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from loopscope.guards import device_of, evaluating
from loopscope.interop.foreign.tracing.traced_model import TracedModel
from loopscope.recurrence import AbstractLoopedLM, unroll


@torch.no_grad()
def counted_flops(
    model: AbstractLoopedLM, input_ids: Int[Tensor, "batch seq"], deepest: int
) -> tuple[float, ...]:
    """Return FLOPs per token of a forward to loop 1, 2, … `deepest`, counted on the first row.

    A module whose own forward is followed is counted as it runs, with all that it computes on the way (logits of every
    exit, in some). Where nothing sets its depth, its trained depth is counted and a loop more or less is one of its
    block. Other models are unrolled, with one readout at the end.

    Returns:
        Nothing where a model has no forward that can be counted.
    """
    ids = input_ids[:1].to(device_of(model))
    depths = range(1, deepest + 1)
    try:
        with evaluating(model):
            if not isinstance(model, TracedModel):
                found = [_count(lambda: _last_logits(model, ids, loops)) for loops in depths]  # noqa: B023
            elif model.trained_count is not None:
                found = [_count(lambda: _own(model, ids, loops)) for loops in depths]  # noqa: B023
            elif model.stateless:
                trained = _count(lambda: _own(model, ids, None))
                one, two = (_count(lambda: _last_logits(model, ids, loops)) for loops in (1, 2))  # noqa: B023
                found = [trained + (loops - model.loops) * (two - one) for loops in depths]
            else:
                return ()
    except Exception:  # whatever a stranger's forward says of a depth, or of attention by plain products
        return ()
    return tuple(count / ids.shape[1] for count in found) if all(count > 0 for count in found) else ()


def _count(run: Callable[[], Any]) -> float:
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        run()
    return float(counter.get_total_flops())


def _last_logits(model: AbstractLoopedLM, ids: Tensor, loops: int) -> Tensor:
    return deque(unroll(model, ids, loops), maxlen=1)[0].logits()


def _own(model: TracedModel, ids: Tensor, loops: int | None) -> Any:
    with model.fixed_draws():
        return model.interceptor.own.run(ids, loops)
