"""Runs of a module's own forward: repeatable, in evaluation mode, and compared with an adapter's logits."""

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from loopscope.guards import device_of, evaluating
from loopscope.interop.foreign.tracing.calls import is_float
from loopscope.numerics import wide

BATCH, SEQ = 2, 8
"""Size of the batch that an adapter checks itself on."""
LONGEST, MOST_LENGTHS = 4096, 24
"""Bounds of the lengths that are tried on a module that does not take `SEQ`."""
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


def carry_and_batch(module: nn.Module) -> Callable[[Tensor], tuple[Any, ...]] | None:
    """Return what makes (carry, batch) of ids, for a module whose forward takes these (HRM, TRM); None for others."""
    names = list(inspect.signature(module.forward).parameters)
    if names[:2] != ["carry", "batch"] or not callable(getattr(module, "initial_carry", None)):
        return None
    return partial(new_carry, module)  # which copies with its module, as a closure would not


def new_carry(module: Any, ids: Tensor) -> tuple[Any, ...]:
    """Return a fresh carry and a batch of ids, as such a module takes them."""
    batch = {"inputs": ids, "labels": ids, "puzzle_identifiers": torch.zeros_like(ids[:, 0])}
    return module.initial_carry(batch), batch


@contextmanager
def repeatable(module: nn.Module) -> Iterator[None]:
    """Fix torch's random draws for a while, on the CPU and the module's devices; put the generators back."""
    on_gpus = module.parameters() if torch.cuda.is_initialized() else ()
    devices = sorted({p.device.index or 0 for p in on_gpus if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(0)
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(0)
        yield


class NoLogitsError(ValueError):
    """What a forward returned holds no logits."""


def logits_of(output: Any) -> Float[Tensor, "batch seq vocab"]:
    """Return the logits in what a forward returned: a tensor, `.logits`, a key, the first [batch seq vocab] of a tuple.

    Where there is a list of one per loop, the last.

    Raises:
        NoLogitsError: none there.
    """
    if isinstance(output, Mapping) and "logits" in output:
        output = output["logits"]
    output = getattr(output, "logits", output)
    if output is None:
        raise NoLogitsError(
            "the module's forward returns no logits (None); make it give them, e.g. with "
            "forward_kwargs={'return_logits': True}"
        )
    if isinstance(output, Tensor):
        if is_float(output) and output.ndim == 3:
            return output
        raise NoLogitsError(
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
        if isinstance(value, Mapping) and "logits" in value:
            return logits_of(value)
        last_one = value[-1] if isinstance(value, list | tuple) and value else None
        if is_float(last_one) and last_one.ndim == 3:
            return last_one
    names = f" ({', '.join(map(str, output))})" if isinstance(output, Mapping) else ""
    raise NoLogitsError(
        f"the module's forward returns {type(output).__name__}{names}, in which no [batch, seq, vocab] logits were "
        "found; say where they are: logits='its name', an index, or a function of what it returns"
    )


def every_logits_of(output: Any) -> list[Tensor]:
    """Return the logits of every loop, where a forward returns a list of them; else an empty list."""
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if isinstance(logits, list) and all(is_float(value) and value.ndim == 3 for value in logits):
        return logits
    return []


def picked(output: Any, where: "str | int | Callable[[Any], Any] | None") -> Any:
    """Return what of a forward's result holds the logits: a tensor, or a list of one tensor per loop.

    Args:
        output: what the forward returned.
        where: a key or an attribute, an index, a function of the result; None: whatever `logits_of` finds, and in a
            mapping without `logits` the one entry of another name with that word in it (`all_logits` before others).

    Raises:
        NoLogitsError: no such entry; names those that there are.
    """
    if where is None:
        if not isinstance(output, Mapping) or "logits" in output:
            return output
        named = [value for name, value in output.items() if "logits" in str(name)]
        lists = [value for value in named if isinstance(value, list | tuple)]
        found = (lists or named or [output])[0]
    elif callable(where):
        found = where(output)
    else:
        if isinstance(output, tuple) and isinstance(where, str):
            output = next((part for part in output if isinstance(part, Mapping) and where in part), output)
        try:
            found = (
                getattr(output, where) if isinstance(where, str) and hasattr(output, where) else output[where]
            )
        except (KeyError, IndexError, TypeError) as error:
            names = ", ".join(map(str, output)) if isinstance(output, Mapping) else type(output).__name__
            raise NoLogitsError(
                f"logits is {where!r}, and the forward returns {names}: it has no such entry"
            ) from error
    if isinstance(found, Tensor) and found.ndim == 4:
        raise NoLogitsError(
            f"logits is a tensor of shape {tuple(found.shape)}; give one per loop, as a list: "
            "logits=lambda output: list(output.unbind(1)), say"
        )
    return list(found) if isinstance(found, tuple) else found


def example(
    module: nn.Module, run: Callable[[Tensor], Any], sequence: int | None = None
) -> Int[Tensor, "batch seq"]:
    """Return a small random batch of ids that the module knows.

    A first run on zeros shows which embeddings the ids go through; the smallest of them, or the logits'
    width, bounds the ids. Id 0 exists in every vocabulary.

    Args:
        run: the module's forward, from ids to what it returns.
        sequence: tokens; None tries `SEQ`, and then lengths that the weights have: a module of one length (a mixer over
            tokens, a Perceiver) has it in their shapes.

    Raises:
        Exception: what the forward said of the first length, where no length runs.
    """
    try:
        return _example(module, run, sequence or SEQ)
    except NoLogitsError:
        raise
    except Exception:
        for length in [] if sequence else _lengths_of(module):
            with suppress(Exception):
                return _example(module, run, length)
        raise


def _lengths_of(module: nn.Module) -> list[int]:
    """Lengths that a module may be made for: sizes of its weights' axes, the rarest first."""
    counts = Counter(
        size for tensor in (*module.parameters(), *module.buffers()) for size in tensor.shape if size != SEQ
    )
    sizes = sorted((size for size in counts if 2 <= size <= LONGEST), key=lambda size: (counts[size], size))
    return sizes[:MOST_LENGTHS]


def _example(module: nn.Module, run: Callable[[Tensor], Any], sequence: int) -> Int[Tensor, "batch seq"]:
    zeros = torch.zeros(BATCH, sequence, dtype=torch.long, device=device_of(module))
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
