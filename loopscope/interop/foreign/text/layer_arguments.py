"""What a stranger's layers are called with besides their state, for tokens at any place of a text.

The module's own forward is run over a short text and over one as long as any that may come; the layers of the long run
compute nothing. What has another length in the two runs is a table with an entry per place (rotary angles, positions):
new tokens get theirs out of it. What has two such axes is a mask, which says how far back a token sees.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from loopscope.interop.foreign.tracing.calls import Call, Forward, call_of, stand_in, with_state
from loopscope.kv_cache import AbstractKVCache

SHORT = 3
"""Tokens of the short run."""


@dataclass(frozen=True)
class Table:
    """A tensor with an entry per place of a text along one axis; axes before it have one entry."""

    values: Tensor
    axis: int

    def at(self, places: Int[Tensor, "rows seq"]) -> Tensor:
        """Return the entries of these places, row by row; once for all rows where no axis is before, and they agree."""
        entries = self.values.flatten(0, self.axis)
        if self.axis == 0:
            same = bool((places == places[:1]).all())
            return entries[places[0] if same else places]
        found = entries[places]
        for _ in range(self.axis - 1):
            found = found.unsqueeze(1)
        return found


@dataclass(frozen=True)
class LayerArguments:
    """One layer's call, with tables where what it is called with depends on the places of its tokens.

    Attributes:
        window: tokens that a token sees, itself included; None: all before it.
    """

    call: Call
    window: int | None

    def at(self, hidden: Tensor, kv_cache: AbstractKVCache) -> Call:
        """Return the call for new tokens, whose places the cache knows."""

        def placed(value: Any) -> Any:
            if isinstance(value, Table):
                name = f"table {value.values.data_ptr()} {value.values.shape}"
                return kv_cache.once(name, lambda: value.at(kv_cache.positions))
            if isinstance(value, Mapping):
                return {key: placed(inner) for key, inner in value.items()}
            return type(value)(map(placed, value)) if type(value) in (tuple, list) else value

        given = self.call.with_hidden(hidden)
        return Call(given.module, tuple(map(placed, given.args)), placed(given.kwargs), given.slot)


def layer_arguments(
    layers: Sequence[nn.Module], run: Callable[[Tensor], Any], longest: int, device: torch.device
) -> dict[nn.Module, LayerArguments]:
    """Return what each layer's first call in a run of the module's forward has, for texts of up to `longest` tokens.

    Args:
        run: the module's forward, from ids.

    Raises:
        ValueError: a layer that the forward does not call, or arguments that depend on the length otherwise.
    """
    longest = max(longest, SHORT + 1)
    outputs: dict[nn.Module, Any] = {}
    short = _calls(layers, run, SHORT, device, outputs)
    long = _calls(layers, run, longest, device, outputs)
    if missing := [layer for layer in layers if layer not in short]:
        raise ValueError(f"its forward does not call {len(missing)} of its {len(layers)} layers")
    found = {}
    for layer in layers:
        one, other = short[layer], long[layer]
        windows: list[int | None] = []
        args = [_tables(a, b, (SHORT, longest), windows) for a, b in zip(one.args, other.args, strict=True)]
        kwargs = {
            name: _tables(one.kwargs.get(name), value, (SHORT, longest), windows)
            for name, value in other.kwargs.items()
        }
        if len(set(windows)) > 1:
            raise ValueError(f"its {type(layer).__name__} is called with masks that differ")
        found[layer] = LayerArguments(Call(layer, tuple(args), kwargs, one.slot), next(iter(windows), None))
    return found


def _calls(
    layers: Sequence[nn.Module],
    run: Callable[[Tensor], Any],
    length: int,
    device: torch.device,
    outputs: dict[nn.Module, Any],
) -> dict[nn.Module, Call]:
    """Each layer's first call in a run of this length. Layers whose output is known pass their state on."""
    calls: dict[nn.Module, Call] = {}
    known = dict(outputs)

    def watched(layer: nn.Module) -> Callable[[Forward], Forward]:
        def answer(original: Forward) -> Forward:
            def forward(*args: Any, **kwargs: Any) -> Any:
                call = call_of(layer, args, kwargs)
                calls.setdefault(layer, call.without_states())
                if layer in known:
                    return with_state(known[layer], call.hidden)
                output = original(*args, **kwargs)
                outputs.setdefault(layer, output)
                return output

            return forward

        return answer

    with ExitStack() as stack:
        for layer in dict.fromkeys(layers):
            stack.enter_context(stand_in(layer, watched(layer)))
        run(torch.zeros(1, length, dtype=torch.int64, device=device))
    return calls


def _tables(short: Any, long: Any, lengths: tuple[int, int], windows: list[int | None]) -> Any:
    """An argument of the long run, with tables for tensors that are as long as the text, and without masks."""
    if isinstance(long, Tensor):
        if isinstance(short, Tensor) and short.shape == long.shape:
            return long
        axes = [axis for axis, size in enumerate(long.shape) if size == lengths[1]]
        if isinstance(short, Tensor) and short.ndim == long.ndim:
            axes = [axis for axis in axes if short.shape[axis] == lengths[0]]
        if len(axes) >= 2:
            windows.append(_window(long.flatten(0, -3)[0] if long.ndim > 2 else long))
            return None
        if len(axes) == 1 and all(size == 1 for size in long.shape[: axes[0]]):
            return Table(long, axes[0])
        raise ValueError(
            f"a layer is called with a tensor of shape {tuple(long.shape)}, which is no table of places"
        )
    if isinstance(short, Tensor) and long is None:
        return None
    if isinstance(long, Mapping) and isinstance(short, Mapping):
        return {key: _tables(short.get(key), value, lengths, windows) for key, value in long.items()}
    if type(long) in (tuple, list) and type(short) is type(long):
        return type(long)(_tables(a, b, lengths, windows) for a, b in zip(short, long, strict=True))
    if type(long) is int and long != short:
        raise ValueError(f"a layer is called with the number {long}, which depends on the text's length")
    return long


def _window(mask: Tensor) -> int | None:
    """How many tokens a token sees by a mask, itself included; None: all before it."""
    allowed = mask if mask.dtype == torch.bool else mask > -1.0
    length = len(allowed)
    places = torch.arange(length, device=mask.device)
    window = int(allowed[-1].sum())
    distance = places[:, None] - places
    if not torch.equal(allowed, (distance >= 0) & (distance < window)):
        raise ValueError("a layer's mask is neither causal nor a window")
    return None if window == length else window
