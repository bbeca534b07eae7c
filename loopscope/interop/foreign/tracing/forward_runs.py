"""Runs of a module's own forward: repeatable, in evaluation mode, and compared with an adapter's logits."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from loopscope.guards import device_of, evaluating
from loopscope.interop.foreign.tracing.calls import is_float
from loopscope.numerics import wide

BATCH, SEQ = 2, 8
"""Size of the batch that an adapter checks itself on."""
LOGITS_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4}
"""Largest difference of logits that counts as agreement, as a share of the largest logit."""
HALF_TOLERANCE = 5e-2


def accepts(module: nn.Module, name: str) -> bool:
    """Return whether the module's forward takes a parameter of this name.

    Where a forward passes its keywords on, its base's is asked too.
    """
    for forward in (module.forward, *(vars(kind).get("forward") for kind in type(module).__mro__)):
        parameters = inspect.signature(forward).parameters if callable(forward) else {}
        if name in parameters:
            return True
        if parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return False
    return False


def dtype_of(module: nn.Module) -> torch.dtype:
    """Return the dtype that most of a module's parameters have, by number of elements."""
    counts: dict[torch.dtype, int] = {}
    for parameter in module.parameters():
        counts[parameter.dtype] = counts.get(parameter.dtype, 0) + parameter.numel()
    return max(counts, key=lambda dtype: counts[dtype], default=torch.float32)


@contextmanager
def repeatable(module: nn.Module) -> Iterator[None]:
    """Fix torch's random draws for a while, on the CPU and the module's devices; put the generators back."""
    devices = sorted({p.device.index or 0 for p in module.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(0)
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(0)
        yield


def logits_of(output: Any) -> Float[Tensor, "batch seq vocab"]:
    """Return the logits in what a forward returned: a tensor, `.logits`, a key, the first [batch seq vocab] of a tuple.

    Where there is a list of one per loop, the last.

    Raises:
        ValueError: none there.
    """
    if isinstance(output, Mapping) and "logits" in output:
        output = output["logits"]
    output = getattr(output, "logits", output)
    if output is None:
        raise ValueError(
            "the module's forward returns no logits (None); make it give them, e.g. with "
            "forward_kwargs={'return_logits': True}"
        )
    if isinstance(output, Tensor):
        if is_float(output) and output.ndim == 3:
            return output
        raise ValueError(
            f"the module's forward returns a {output.dtype} tensor of shape {tuple(output.shape)}; "
            "logits are floats [batch, seq, vocab]"
        )
    values = list(output) if isinstance(output, list | tuple) else []
    if values and all(is_float(value) and value.ndim == 3 for value in values) and isinstance(output, list):
        last: Tensor = values[-1]
        return last
    for value in values:
        if is_float(value) and value.ndim == 3:
            return value
        last_one = value[-1] if isinstance(value, list | tuple) and value else None
        if is_float(last_one) and last_one.ndim == 3:
            return last_one
    raise ValueError(
        f"the module's forward returns {type(output).__name__}, in which no [batch, seq, vocab] logits were found"
    )


def every_logits_of(output: Any) -> list[Tensor]:
    """Return the logits of every loop, where a forward returns a list of them; else an empty list."""
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if isinstance(logits, list) and all(is_float(value) and value.ndim == 3 for value in logits):
        return logits
    return []


def example(module: nn.Module, run: Callable[[Tensor], Any]) -> Int[Tensor, "batch seq"]:
    """Return a small random batch of ids that the module knows.

    A first run on zeros shows which embeddings the ids go through; the smallest of them, or the logits'
    width, bounds the ids. Id 0 exists in every vocabulary.
    """
    zeros = torch.zeros(BATCH, SEQ, dtype=torch.long, device=device_of(module))
    sizes: list[int] = []

    def seen(part: Any, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor) and torch.equal(args[0], zeros):
            sizes.append(part.num_embeddings)

    hooks = [p.register_forward_pre_hook(seen) for p in module.modules() if isinstance(p, nn.Embedding)]
    try:
        with torch.no_grad(), evaluating(module), repeatable(module):
            sizes.append(logits_of(run(zeros)).shape[-1])
    finally:
        for hook in hooks:
            hook.remove()
    ids = torch.randint(min(sizes), zeros.shape, generator=torch.Generator().manual_seed(0))
    return ids.to(zeros.device)


def disagreement(
    logits: Float[Tensor, "batch _ _"], own: Float[Tensor, "batch _ _"], dtype: torch.dtype
) -> str | None:
    """Return how an adapter's logits differ from the module's own, in words; None where they agree.

    A forward that gives only the last positions' logits is compared there.
    """
    if logits.shape[-1] != own.shape[-1]:
        return f"the vocabulary is {logits.shape[-1]} entries wide, the module's own logits {own.shape[-1]}"
    if not bool(torch.isfinite(own).all()):
        return "the module's own logits are not finite: its weights may never have been set"
    logits = logits[:, logits.shape[1] - own.shape[1] :]
    gap, size = float((wide(logits) - wide(own)).abs().max()), float(wide(own).abs().max())
    if gap <= LOGITS_TOLERANCE.get(dtype, HALF_TOLERANCE) * max(size, 1e-30):
        return None
    return f"the logits differ by up to {gap:.3g}, where the module's own go up to {size:.3g}"
